"""Packages of the distribution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from agent.difference import Difference
from agent.kinds.kind import Applied, Kind
from agent.machine import Machine, StepError, last_lines, poll, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_NO_NETWORK = (
    "Check the machine's network (Docker on the host cuts containers off: it sets FORWARD to DROP) "
    "and its disk, then run up again."
)
_DPKG = "/var/lib/dpkg"


@dataclass(frozen=True)
class Packages(Kind):
    """Packages that are installed. ``mask``: their units that must not start."""

    kind = "packages"
    names: Sequence[str]
    mask: Sequence[str] = field(default_factory=list)
    #: How long a machine that was just started may take until it has a network; s.
    network_deadline: int = 60

    @property
    def locks(self) -> list[str]:
        """One step at a time: apt-get has one lock."""
        return ["packages"]

    @property
    def fetches(self) -> bool:
        """From the distribution."""
        return True

    def apply(self, machine: Machine, step: str) -> Applied:
        """Install what is missing."""
        for unit in self.mask:
            if not machine.path(f"/lib/systemd/system/{unit}").exists():
                mask = ["systemctl", "mask", "--quiet", unit]
                machine.run(mask, check=False, deadline=60)
        missing = self._missing(machine)
        if missing:
            self._wait_for_network(machine)
            say(f"installing {' '.join(missing)}")
            # An installation that was cut off is finished first: apt-get refuses to go on with it.
            machine.run(["dpkg", "--configure", "-a"], check=False, deadline=1800)
            apt = ["apt-get", "-q", "-o", "DPkg::Lock::Timeout=600"]
            for words in (["update"], ["-y", "--no-install-recommends", "install", *missing]):
                done = machine.run([*apt, *words], check=False, deadline=1800)
                if done.returncode:
                    raise StepError(
                        f"apt-get could not install {' '.join(missing)}.",
                        details=last_lines(done.stderr or done.stdout, 5),
                        resolution=_NO_NETWORK,
                    )
        return Applied({"installed": missing})

    def _missing(self, machine: Machine) -> list[str]:
        if self._all_listed(machine):
            return []
        asked = ["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *self.names]
        said = machine.run(asked, check=False, deadline=60).stdout.splitlines()
        installed = {line.split(" ")[0] for line in said if line.endswith(" installed")}
        return [name for name in self.names if name not in installed]

    def _all_listed(self, machine: Machine) -> bool:
        """Whether dpkg's own list has them all; where it has not, dpkg-query knows.

        A preview asks every machine, and to start a program takes as long as all the rest.
        """
        try:
            if any(machine.path(f"{_DPKG}/updates").iterdir()):  # not in the list yet
                return False
            listed = "\n" + machine.path(f"{_DPKG}/status").read_text("utf-8", "replace")
        except OSError:
            return False
        installed = "\nPackage: {}\nStatus: install ok installed\n"
        return all(installed.format(name) in listed for name in self.names)

    def _wait_for_network(self, machine: Machine) -> None:
        import socket  # not at the top: a check does without, and starts sooner

        def ready() -> bool:
            routes = ["ip", "-4", "route", "show", "default"]
            if not machine.run(routes, check=False, deadline=10).stdout:
                return False
            try:
                socket.getaddrinfo(socket.gethostname(), None)
            except OSError:
                return False
            return True

        if not poll(ready, self.network_deadline, 0.2):
            raise StepError(
                f"The machine has no network after {self.network_deadline} s.",
                resolution="Look at the bridge and at the host's firewall (Docker sets FORWARD to "
                "DROP), then run up again.",
                unchanged=True,
            )

    def check(self, machine: Machine, made: Mapping[str, Any]) -> list[Difference]:
        """Packages that somebody removed."""
        return [Difference(f"package {n}", "not there", "there") for n in self._missing(machine)]
