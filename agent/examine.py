"""What ``make doctor`` asks a machine: its services, and what they need. Nothing is changed."""

from __future__ import annotations

import glob
import os
import re
import socket
import ssl
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

from agent import record
from agent.certificate import not_after
from agent.files import read
from agent.http import HealthRequest, RefusedError, ask, healthy
from agent.kinds.program import Program
from agent.kinds.secret_files import SecretFiles
from agent.kinds.service import Service
from agent.kinds.transcription import Transcription
from agent.machine import STATE, Machine, StepError
from agent.status import recorded, status
from agent.updates import waiting

#: Seconds that a service, a name server or another host may take to answer.
_DEADLINE = 5
#: Where steps keep what is large; each may be a file system of its own.
_PLACES = ("/", STATE, "/srv/*")
#: The addresses from which packages come: the first one stands for what is outside of the host.
_SOURCES = ("/etc/apt/sources.list", "/etc/apt/sources.list.d/*")
_SOURCE = re.compile(r"^[^#\n]*?\b(https?)://([^/\s:\]]+)(?::(\d+))?", re.MULTILINE)


def examine(machine: Machine, names: Sequence[str]) -> dict[str, Any]:
    """What a machine says of itself; ``names`` are those that it should be able to look up.

    By step: ``services`` as in ``status``, ``healthy``, ``certificates`` (their ends, in seconds
    since 1970), ``programs``, when each service was ``applied``, what was ``verified`` and when,
    and ``keys``. ``updates``: the distribution's for security, that wait.
    """
    services = recorded(machine, Service)
    kept = list(record.records(machine))
    with ThreadPoolExecutor(8) as pool:
        working = pool.map(lambda each: _healthy(machine, each), services.values())
        addresses = pool.map(lambda name: _addresses(machine, name), names)
        outside = pool.submit(_outside, machine)
        certificates = pool.map(_certificate, services.values())
        keys = pool.submit(_keys, machine)
        updates = pool.submit(waiting, machine)
        found = status(machine)
    return {
        **found,
        "healthy": dict(zip(services, working, strict=True)),
        "unfinished": record.unfinished(machine),
        "programs": {
            each.step: {name: each.spec.get(name, "") for name in ("directory", "description")}
            for each in kept
            if each.kind == Program.kind
        },
        "applied": {each.step: each.applied_at for each in kept if each.kind == Service.kind},
        "verified": {
            each.step: {
                "at": each.applied_at,
                **(each.made if each.kind == Transcription.kind else {}),
            }
            for each in kept
            if each.step.endswith("/verify")
        },
        "keys": keys.result(),
        "updates": updates.result(),
        "names": dict(zip(names, addresses, strict=True)),
        "outside": outside.result(),
        "disks": _disks(machine),
        "certificates": {
            step: each for step, each in zip(services, certificates, strict=True) if each
        },
        "time": time.time(),
    }


def _healthy(machine: Machine, service: Service) -> bool:
    """Whether it answers what changes nothing: a request with POST may load a model."""
    requests = [each for each in service.health if each.method == "GET" and not each.header_file]
    try:
        return healthy(machine, requests, _DEADLINE)
    except RefusedError:
        return False


def _keys(machine: Machine) -> dict[str, Any]:
    """For each step that verifies an STT service: HTTP status with the machine's key, and without.

    ``changed``: how the files with the key differ from what was applied; no secret is in it.
    ``elsewhere``: the URL of a server that the gateway has beside its own stack's; what that says
    without a key is a matter of the other stack.
    """
    found: dict[str, Any] = {}
    for step, kind in recorded(machine, Transcription).items():
        url, header = f"{kind.url}/models", kind.header_file
        role = step.partition("/")[0]
        kept = [record.load(machine, f"{role}/{part}") for part in ("secrets", "clients")]
        kind_of = SecretFiles.without_spec()
        changed = [found for each in kept if each for found in kind_of.check(machine, each.made)]
        found[step] = {
            "asked": bool(header),
            "engine": kind.engine,
            "with": _status(machine, url, header) if header else 0,
            "without": 0 if kind.elsewhere else _status(machine, url),
            "changed": [f"{each.field}: {each.found}" for each in changed],
            **({"elsewhere": kind.url} if kind.elsewhere else {}),
        }
    return found


def _status(machine: Machine, url: str, header: str = "") -> int:
    return ask(machine, HealthRequest(url, header_file=header), _DEADLINE).status


def _addresses(machine: Machine, name: str) -> list[str]:
    """The IPv4 addresses of a name, as this machine's programs look it up."""
    argv = ["getent", "ahostsv4", name]
    try:
        said = machine.run(argv, check=False, deadline=_DEADLINE).stdout
    except StepError:  # no name server answers
        return []
    return sorted({line.split()[0] for line in said.splitlines() if line.split()})


def _outside(machine: Machine) -> dict[str, Any]:
    """The host that the machine's packages come from: its name, addresses, and whether it answers.

    Empty if no package source is known, or a proxy is between.
    """
    if any(name in os.environ for name in ("http_proxy", "https_proxy")):
        return {}
    files = (path for pattern in _SOURCES for path in _matching(machine, pattern))
    texts = (read(machine.path(path)) or "" for path in files)
    source = next(filter(None, map(_SOURCE.search, texts)), None)
    if source is None:
        return {}
    scheme, name, port = source.groups()
    addresses = _addresses(machine, name)
    reached = any(
        _reached(each, int(port or {"http": 80}.get(scheme, 443))) for each in addresses[:2]
    )
    return {"name": name, "addresses": addresses, "reached": reached}


def _matching(machine: Machine, pattern: str) -> list[str]:
    root = str(machine.root).rstrip("/")
    return sorted(path.removeprefix(root) for path in glob.glob(f"{root}{pattern}"))


def _reached(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), timeout=_DEADLINE):
            return True
    except OSError:
        return False


def _disks(machine: Machine) -> list[dict[str, Any]]:
    """Size and free space of each file system in bytes, and the share of inodes that is free."""
    found: dict[tuple[int, int], dict[str, Any]] = {}
    for path in (path for pattern in _PLACES for path in _matching(machine, pattern)):
        each = os.statvfs(machine.path(path))
        size, free = each.f_blocks * each.f_frsize, each.f_bavail * each.f_frsize
        inodes = each.f_favail / each.f_files if each.f_files else 1.0
        found.setdefault((size, free), {"path": path, "size": size, "free": free, "inodes": inodes})
    return list(found.values())


def _certificate(service: Service) -> float:
    """When the certificate ends that a service shows; 0: it has none, or does not answer."""
    for url in (urlsplit(each.url) for each in service.health):
        if url.scheme == "https":
            place = (url.hostname or "", url.port or 443)
            try:
                return not_after(ssl.get_server_certificate(place, timeout=_DEADLINE))
            except (OSError, ValueError):
                return 0
    return 0
