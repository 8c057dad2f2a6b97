"""Certificates of authorities that a machine trusts beside its distribution's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.difference import Difference, compare, missing
from agent.files import File, read, write
from agent.kinds.kind import Applied, Kind
from agent.machine import Machine

DIRECTORY = "/usr/local/share/ca-certificates"
_PREFIX = "stt-caBundle-"
_BLOCK = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n?", re.DOTALL)


@dataclass(frozen=True)
class Certificates(Kind):
    """``pem``: certificates, one after the other."""

    kind = "certificates"
    pem: str

    @property
    def locks(self) -> list[str]:
        """The directory."""
        return [DIRECTORY]

    def _files(self) -> list[File]:
        blocks = _BLOCK.findall(self.pem)
        return [
            File(f"{DIRECTORY}/{_PREFIX}{number}.crt", f"{block.rstrip()}\n")
            for number, block in enumerate(blocks, 1)
        ]

    @staticmethod
    def _present(machine: Machine) -> list[Path]:
        return sorted(machine.path(DIRECTORY).glob(f"{_PREFIX}*.crt*"))

    def apply(self, machine: Machine, step: str) -> Applied:
        """Write them, remove earlier ones, and have the bundle made again."""
        files = self._files()
        wanted = {machine.path(file.path) for file in files}
        for path in self._present(machine):
            if path not in wanted:
                path.unlink(missing_ok=True)
        for file in files:
            write(machine, file)
        self._update(machine)
        return Applied({"certificates": len(files)})

    @staticmethod
    def _update(machine: Machine) -> None:
        # Installed later, it reads the directory by itself.
        if machine.path("/usr/sbin/update-ca-certificates").exists():
            machine.run(["update-ca-certificates"], deadline=120)

    def check(self, machine: Machine, made: Mapping[str, Any]) -> list[Difference]:
        """Certificates that were changed, removed or added."""
        found: list[Difference] = []
        files = self._files()
        for file in files:
            text = read(machine.path(file.path))
            found += [missing(file.path)] if text is None else []
            if text is not None and text != file.content:
                found.append(Difference(file.path, "another certificate", "as written"))
        wanted = {machine.path(file.path) for file in files}
        extra = [path.name for path in self._present(machine) if path not in wanted]
        return found + [d for name in extra for d in compare(name, "not there", "there")]

    def remove(self, machine: Machine, made: Mapping[str, Any]) -> None:
        """Trust them no longer."""
        for path in self._present(machine):
            path.unlink(missing_ok=True)
        self._update(machine)
