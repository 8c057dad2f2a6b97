"""The roles of machines. A role is one folder here; ``ROLES`` finds it, there is no list to edit.

A folder has the role's name. It defines ``ROLE``, a ``roles.role.Role``, and keeps its files for
machines in ``machine/``. This room may import ``gpu``, ``stack``, ``engines``, ``declaration`` and
``agent``; no Pulumi here.
"""

from __future__ import annotations

from declaration.folders import Folders
from roles.role import Role

#: Every role by the name that infra.yml uses.
ROLES: Folders[Role] = Folders("roles", __path__, "ROLE", dashes=False)

__all__ = ["ROLES", "Role"]
