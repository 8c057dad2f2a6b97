"""Files with secrets: a running service gets them by a restart, or reads them by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent import files, systemd
from agent.difference import Difference, missing
from agent.files import File
from agent.kinds.kind import Applied, Kind
from agent.kinds.service import applied_service
from agent.machine import Machine, StepError
from agent.record import make_salt, salted
from agent.transaction import Transaction

_MODE = "0600"


@dataclass(frozen=True)
class SecretFile:
    """A file that only its owner reads: a text, or variables of an environment file."""

    path: str
    content: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    owner: str = "root:root"

    def file(self) -> File:
        """The file as it is written."""
        text = systemd.environment_text(self.variables) if self.variables else self.content
        return File(self.path, text, _MODE, self.owner)


@dataclass(frozen=True)
class SecretFiles(Kind):
    """Secrets of the service that the step ``service`` applies; empty: it sees new ones itself."""

    kind = "secret_files"
    takes_secrets = True
    secrets: Sequence[SecretFile]
    service: str = ""

    @property
    def locks(self) -> list[str]:
        """The files."""
        return [secret.path for secret in self.secrets]

    def written(self) -> list[str]:
        """The files."""
        return [secret.path for secret in self.secrets]

    def apply(self, machine: Machine, step: str) -> Applied:
        """Write them; if one changed, restart the service if it runs."""
        mine = [secret.file() for secret in self.secrets]
        changed = any(files.read(machine.path(file.path)) != file.content for file in mine)
        for file in mine:
            files.write(machine, file)
        if changed and self.service:
            self._restart(machine)
        make_salt(machine)
        # Digests with this machine's salt: the record tells nobody a secret.
        made = {f.path: [salted(machine, f.content), f.owner] for f in mine}
        # What comes after it runs again when they change.
        return Applied({"digest": salted(machine, repr(made))}, made)

    def _restart(self, machine: Machine) -> None:
        service = applied_service(machine, self.service)
        if service is None:
            return
        with machine.lock(service.locks[0]):
            if Transaction(machine, self.service).pending:
                # It was cut off half-way and may not come up before its own step repairs it.
                words = ["systemctl", "try-restart", "--no-block", service.unit_name]
                machine.run(words, check=False)
            elif systemd.show(machine, service.unit_name).get("ActiveState") == "active":
                words = ["systemctl", "restart", service.unit_name]
                with service.out_of_turn(machine):
                    machine.run(words, deadline=service.deadline)
                    failure = service.wait(machine, service.deadline)
                if failure:
                    raise StepError(
                        f"{service.unit_name} does not work with its new secrets: {failure}.",
                        resolution=f"See journalctl -u {service.unit} in the machine.",
                    )

    def check(self, machine: Machine, made: Mapping[str, Any]) -> list[Difference]:
        """Mode, owner, and whether they are as they were written."""
        found: list[Difference] = []
        for path, (digest, owner) in made_paths(made).items():
            text = files.read(machine.path(path))
            if text is None:
                found.append(missing(path))
                continue
            found += files.check_attributes(machine, path, _MODE, owner)
            if salted(machine, text) != digest:
                found.append(Difference(path, "(another secret, not shown)", "as written"))
        return found

    def remove(self, machine: Machine, made: Mapping[str, Any]) -> None:
        """Remove the files."""
        for path in made:
            files.discard(machine, path)


def made_paths(made: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Digest and owner of each path in a record."""
    return {path: (str(noted[0]), str(noted[1])) for path, noted in made.items()}
