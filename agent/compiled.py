"""What Python makes of the agent's sources, added to its own file: it starts sooner."""

from __future__ import annotations

import importlib.util
import marshal
import zipfile
from pathlib import Path

#: By hash, and never compared with the source; another version of Python takes the source.
_FLAGS = (1).to_bytes(4, "little")


def add_compiled(archive: Path) -> None:
    """Add the compiled form of every source, once."""
    header = importlib.util.MAGIC_NUMBER + _FLAGS + bytes(8)
    place = str(archive).removesuffix(".part")
    with zipfile.ZipFile(archive, "a") as file:
        names = file.namelist()
        for name in names:
            if name.endswith(".py") and f"{name}c" not in names:
                code = compile(file.read(name), f"{place}/{name}", "exec", dont_inherit=True)
                file.writestr(zipfile.ZipInfo(f"{name}c"), header + marshal.dumps(code))
