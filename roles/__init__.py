"""The roles of machines. A role is one folder here; ``ROLES`` finds it, there is no list to edit.

A folder has the role's name. It defines ``ROLE``, a ``roles.role.Role``, and keeps its files for
machines in ``machine/``. This room may import ``gpu``, ``stack``, ``engines``, ``declaration`` and
``agent``; no Pulumi here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from roles.role import Role

_NAMES = sorted(found.name for found in iter_modules(__path__) if found.ispkg)


@cache
def _role(name: str) -> Role:
    role: Role = import_module(f"{__name__}.{name}").ROLE
    if role.name != name:
        raise ValueError(
            f"roles/{name}: its ROLE is called {role.name}. Give it the folder's name."
        )
    return role


class _Roles(Mapping[str, Role]):
    """Every role; a role that nobody asks for is not imported, which a preview would wait for."""

    def __getitem__(self, name: str) -> Role:
        if name not in _NAMES:
            raise KeyError(name)
        return _role(name)

    def __iter__(self) -> Iterator[str]:
        return iter(_NAMES)

    def __len__(self) -> int:
        return len(_NAMES)


#: Every role by the name that infra.yml uses.
ROLES: Mapping[str, Role] = _Roles()

__all__ = ["ROLES", "Role"]
