"""Exclusive AI access: between the domain that had it and the next one, the services forget."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

import pulumi

from components.command import Command, Host
from components.domain import Domain
from components.step import run_after
from stack.ai_access import HAND_OVER


class HandOver(Command):
    """Cuts the connections of other domains to the AI services, and unloads the models.

    It runs again whenever an ACL of the access is changed: once none of them lets anybody in,
    and before they let somebody in.
    """

    def __init__(self, host: Host, acls: Sequence[Command], needs: Sequence[Command]) -> None:
        words = ["operations", "hand-over", "--stack", pulumi.get_stack()]
        super().__init__(
            HAND_OVER,
            host,
            create=shlex.join([".venv/bin/python", "-m", *words]),
            after=run_after({str(number): acl for number, acl in enumerate(acls)}),
            here=True,
            opts=pulumi.ResourceOptions(depends_on=[*acls, *needs]),
        )


def give_ai_access(host: Host, domains: Sequence[tuple[Domain, Command]]) -> None:
    """Let in who has the access, last of all, where one domain has it at a time.

    Each domain comes with what closes its ordinary ACL: where the access was open before, the ways
    of the others are there until then.
    """
    shared = [(domain, domain.ai_acl) for domain, _ in domains if domain.ai_acl]
    if not shared:
        return
    closed = [command for domain, command in domains if domain.ai_acl]
    hand_over = HandOver(host, [acl for _, acl in shared], closed)
    for domain, acl in shared:
        domain.give_ai_access(acl, hand_over)
