"""The roles of machines: a folder each, found by itself. Pure data; no Pulumi here."""

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
