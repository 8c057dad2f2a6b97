"""What the folders of a package define, found without a list of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from pkgutil import iter_modules
from typing import Protocol, TypeVar


class Named(Protocol):
    """What a folder defines."""

    @property
    def name(self) -> str:
        """The folder's name, as settings and infra.yml write it."""
        ...


T = TypeVar("T", bound=Named)


class Folders(Mapping[str, T]):
    """A definition for each folder of a package, by name: the first, then alphabetically.

    A folder that nobody asks for is not imported, which a preview would wait for. The directory is
    read once.
    """

    def __init__(
        self, package: str, path: list[str], attribute: str, *, first: str = "", dashes: bool
    ) -> None:
        """Keep where to look.

        Args:
            package: The name of the package.
            path: Its ``__path__``.
            attribute: What each folder defines.
            first: The name that comes first.
            dashes: Whether names have dashes where folders have underscores.
        """
        self._package, self._path, self._attribute = package, path, attribute
        self._first, self._dashes = first, dashes
        self._found: dict[str, T] = {}
        self._names: list[str] = []

    def __getitem__(self, name: str) -> T:
        """The definition.

        Raises:
            KeyError: there is no such folder.
            ValueError: the folder does not define it, or under another name.
        """
        if name not in self._found:
            if name not in self._all_names():
                raise KeyError(name)
            self._found[name] = self._load(name)
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all_names())

    def __len__(self) -> int:
        return len(self._all_names())

    def _all_names(self) -> list[str]:
        if not self._names:
            names = [module.name for module in iter_modules(self._path) if module.ispkg]
            if self._dashes:
                names = [name.replace("_", "-") for name in names]
            self._names = sorted(names, key=lambda name: (name != self._first, name))
        return self._names

    def _load(self, name: str) -> T:
        folder = name.replace("-", "_") if self._dashes else name
        found: T | None = getattr(import_module(f"{self._package}.{folder}"), self._attribute, None)
        where = f"{self._package}/{folder}"
        if found is None:
            raise ValueError(f"{where} defines no {self._attribute}. Define one, or move it away.")
        if found.name != name:
            raise ValueError(
                f"{where}: its {self._attribute} is called {found.name!r}. Call it {name!r}, "
                "or rename the folder."
            )
        return found
