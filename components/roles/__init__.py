"""The roles of machines. Every module here is imported, so a new role is one new file."""

from importlib import import_module
from pkgutil import iter_modules

from components.roles.role import ROLES, Context, Shared

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = ["ROLES", "Context", "Shared"]
