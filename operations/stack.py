"""A stack's declaration, read without Pulumi: all but its secrets."""

from __future__ import annotations

from pathlib import Path

from declaration.stack_file import read_stack_file
from roles import ROLES
from stack.declare import Declaration, declare

ROOT = Path(__file__).resolve().parent.parent


def read_stack(stack: str) -> Declaration:
    """The stack's declaration; its secrets are at their defaults.

    Raises:
        DeclarationError: with every problem of it.
    """
    return declare(read_stack_file(ROOT, stack).plain_values(), ROLES, ROOT)
