"""Many machines without having them: a stack of a few is made, and the rest are copies of these.

The stack is really there. What the Incus client answers to the read of the host is recorded, and
so is the state; both get copies of one machine, by another name and address. A stand-in for the
client gives these answers, in the very form that the client gives them. Pulumi, its plugins and
this program do all of their work; the client, the daemon and the agents do none.
"""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import subprocess
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.record import digest_of
from declaration.connection import Connection
from declaration.idmap import USERS
from host.client import shell
from host.read import READS
from host.reading import VOLUMES, read_script

#: Answers that list the machines which use something.
_USED = ("projects", "networks", "profiles", "volumes")
_BASE = "volatile.idmap.base"
#: So many machines' users lie between those of one copy and the next: real machines have fewer.
_FAR = 1000
#: Answers what was recorded, and notes each call. Its directory is named by ``{place}``.
_STAND_IN = """#!/bin/sh
echo "$*" >>{place}/calls
case "$*" in
  *" exec "*) exec cat "{place}/machine $2 $4" ;;
  "list "*) exec cat {place}/list ;;
{queries}
esac
echo "The stand-in for incus has no answer to: $*" >&2
exit 1
"""


def as_client(value: Any) -> str:
    """JSON as ``incus query`` prints it."""
    text = json.dumps(value, indent="\t", ensure_ascii=False)
    for plain, escaped in (("&", "\\u0026"), ("<", "\\u003c"), (">", "\\u003e")):
        text = text.replace(plain, escaped)
    return f"{text}\n\n"


def record(connection: Connection, pool: str) -> dict[str, str]:
    """What the real client answers to the read of the host, by the name of each answer.

    Raises:
        ValueError: ``as_client`` would not give the same bytes.
    """
    done = subprocess.run(  # noqa: S603  # the operator's own host
        [*shell(connection), read_script(connection, pool)],
        capture_output=True,
        timeout=60,
        check=True,
    )
    found: dict[str, str] = {}
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        for each in archive:
            if content := archive.extractfile(each):
                found[each.name.removeprefix("./")] = content.read().decode()
    for name in ("instances", *_USED):
        if as_client(json.loads(found[name])) != found[name]:
            raise ValueError(f"the client prints {name} in another form than this file expects")
    return found


class Copies:
    """Copies of a machine, ``names`` in its domain, with the addresses that follow its own."""

    def __init__(self, domain: str, machine: str, address: str, names: Sequence[str]) -> None:
        self._domain, self._machine, self._names = domain, machine, names
        self._address = address
        self._network, _, number = address.rpartition(".")
        self._first = int(number)

    def of(self, text: str) -> Iterator[str]:
        """A text for each copy, with its own name and address in it."""
        for number, name in enumerate(self._names, self._first + 1):
            renamed = re.sub(rf"\b{re.escape(self._machine)}\b", name, text)
            address = rf"\b{re.escape(self._address)}\b"
            yield re.sub(address, f"{self._network}.{number}", renamed)

    def answers(self, found: Mapping[str, str]) -> dict[str, str]:
        """Recorded answers with the copies in them."""
        more = dict(found)
        instances = json.loads(found["instances"])
        [mine] = [
            each
            for each in instances
            if (each["project"], each["name"]) == (self._domain, self._machine)
        ]
        for number, text in enumerate(self.of(json.dumps(mine)), 1):
            copy = json.loads(text)
            # Each has users of its own: two with the same would be a finding.
            users = str(int(mine["config"][_BASE]) + number * _FAR * USERS)
            copy["config"][_BASE] = copy["expanded_config"][_BASE] = users
            instances.append(copy)
        more["instances"] = as_client(instances)
        for key in _USED:
            listed = json.loads(found[key])
            for each in listed:
                each["used_by"] = self._users(each["used_by"])
            more[key] = as_client(listed)
        said = found[f"machine {self._domain} {self._machine}"]
        names = [f"machine {self._domain} {name}" for name in self._names]
        return more | dict(zip(names, self.of(said), strict=True))

    def _users(self, used_by: Sequence[str]) -> list[str]:
        mine = f"/1.0/instances/{self._machine}?project={self._domain}"
        return [*used_by, *(self.of(mine) if mine in used_by else ())]

    def state(self, exported: Mapping[str, Any]) -> dict[str, Any]:
        """An exported state with the copies in it."""
        resources: list[Any] = []
        closing: list[Any] = []
        place = f"{self._domain}/{self._machine}"
        for each in exported["deployment"]["resources"]:
            name = each["urn"].rpartition("::")[2]
            # What closes a network comes after every step.
            (closing if name.endswith("/acl/closed") else resources).append(each)
            if f"{name}/".startswith(f"{place}/"):
                resources += [json.loads(text) for text in self.of(json.dumps(each))]
        deployment = {**exported["deployment"], "resources": [*resources, *closing]}
        return {**exported, "deployment": deployment}


def digests(answers: Mapping[str, str], exported: Mapping[str, Any]) -> dict[str, str]:
    """Answers of agents with the digests of what the state has: a copy has another name in it."""
    noted: dict[str, str] = {}
    for each in exported["deployment"]["resources"]:
        stdin = each.get("inputs", {}).get("stdin")
        if isinstance(stdin, str) and '"spec"' in stdin:
            name = each["urn"].rpartition("::")[2]
            noted[name] = digest_of(json.loads(stdin)["spec"])
    found = dict(answers)
    for name in answers:
        if not name.startswith("machine "):
            continue
        said = json.loads(answers[name])
        _, project, machine = name.split(" ")
        for step, applied in said["steps"].items():
            applied["digest"] = noted.get(f"{project}/{machine}/{step}", applied["digest"])
        found[name] = json.dumps(said, ensure_ascii=False)
    return found


def write_stand_in(answers: Mapping[str, str], pool: str, place: Path) -> Path:
    """A directory for PATH with ``incus`` in it; ``place/calls`` will have the calls."""
    queries = {**READS, "volumes": VOLUMES.format(pool=pool)}
    place.mkdir(parents=True)
    for name, text in answers.items():
        (place / name).write_text(text, encoding="utf-8")
    machines = [name.split(" ")[1:] for name in answers if name.startswith("machine ")]
    (place / "list").write_text("".join(f"{project},{name}\n" for project, name in machines))
    cases = "\n".join(
        f"  {shlex.quote(f'query {path}')}) exec cat {place}/{name} ;;"
        for name, path in queries.items()
        if name in answers
    )
    directory = place / "bin"
    directory.mkdir()
    file = directory / "incus"
    file.write_text(_STAND_IN.format(place=place, queries=cases))
    os.chmod(file, 0o755)  # noqa: S103  # a program
    return directory
