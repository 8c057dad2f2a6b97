"""The roles of machines. A role is one folder here; ``ROLES`` finds it, there is no list to edit.

A folder defines ``ROLE``, a ``roles.role.Role``, and keeps its files for machines in ``machine/``.
This room may import ``gpu``, ``stack``, ``engines``, ``declaration`` and ``agent``; no Pulumi here.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from roles.role import Role

#: Every role by the name that infra.yml uses.
ROLES: dict[str, Role] = {}
for _found in iter_modules(__path__):
    if _found.ispkg:
        _role: Role = import_module(f"{__name__}.{_found.name}").ROLE
        ROLES[_role.name] = _role

__all__ = ["ROLES", "Role"]
