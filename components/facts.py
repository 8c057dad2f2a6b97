"""What a machine is asked, and what the answer should be: the other side of each script."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from components.service import File, ServiceArgs
from components.templates import render

#: What `manifest` and `sealed` answer (templates/seal.sh).
AS_MADE = "as made"


@dataclass(frozen=True)
class Fact:
    """``ask`` is a shell command without effects; what it prints should be ``wanted``."""

    field: str
    ask: str
    wanted: str


def sealed(path: str) -> Fact:
    """A file or directory that was brought or made once, and is as it was then."""
    return Fact(path, f"state {shlex.quote(path)}", AS_MADE)


def user(name: str, uid: int) -> Fact:
    """A service's own user."""
    return Fact(f"user {name}", f"id -u {shlex.quote(name)}", str(uid))


def packages(names: Sequence[str]) -> Fact:
    """Installed packages of the distribution."""
    words = " ".join(names)
    return Fact(
        "packages",
        f"for p in {words}; do dpkg-query -W -f '${{db:Status-Status}}' $p 2>/dev/null | "
        "grep -qx installed && echo $p; done | tr '\\n' ' '",
        words + " ",
    )


def file(item: File) -> Fact:
    """A file with its mode, owner and content, which is no secret."""
    path = shlex.quote(item.path)
    return Fact(
        item.path,
        f"[ ! -e {path} ] || {{ stat -c 'mode %a, owner %U:%G' {path} && cat {path}; }}",
        f"mode {int(item.mode, 8):o}, owner {item.owner}\n{item.content}",
    )


def secret_files(service: str, paths: Sequence[str], owners: Sequence[str]) -> list[Fact]:
    """Secret files: their mode and owner, and whether they are as they were written."""
    facts = [
        Fact(path, f"stat -c 'mode %a, owner %U:%G' {shlex.quote(path)}", f"mode 600, owner {own}")
        for path, own in zip(paths, owners, strict=True)
    ]
    noted = shlex.quote(f"/var/lib/incus-stt/{service}/secrets")
    written = (
        f"sha256sum --quiet --check {noted} >/dev/null 2>&1 && echo as written || echo changed"
    )
    return [*facts, Fact(f"secrets of {service}", written, "as written")]


def unit(name: str) -> list[Fact]:
    """A service of systemd: active, enabled, and with no drop-ins of somebody else's."""
    service = f"{name}.service"
    return [
        Fact(service, f"systemctl is-active {service} || :", "active"),
        Fact(service, f"systemctl is-enabled {service} || :", "enabled"),
        Fact(f"{service}.d", f"ls /etc/systemd/system/{service}.d 2>/dev/null || :", ""),
    ]


def service_facts(prefix: str, args: ServiceArgs) -> dict[str, list[Fact]]:
    """What a service's resources made, by the names of the resources."""
    facts = {f"{prefix}/{sent.name}": [sealed(sent.destination)] for sent in args.sent}
    installed = [user(args.unit.user, args.uid)]
    installed += [sealed(path) for path in (args.program, *args.directories) if path]
    installed += [packages(args.packages)] if args.packages else []
    facts[f"{prefix}/install"] = installed
    if args.secrets:
        paths, _, owners = zip(*args.secrets, strict=True)
        facts[f"{prefix}/secrets"] = secret_files(args.name, paths, owners)
    if args.models:
        facts[f"{prefix}/model"] = [sealed(args.model_directory)]
    files = [file(item) for item in [*args.unit.files(), *args.files]]
    facts[f"{prefix}/configure"] = [*files, *unit(args.unit.name)]
    return facts


def questions(facts: Sequence[Fact], probes: Sequence[str] = ()) -> str:
    """The script that asks all, inside a machine: an answer in base64 a line, then ``end``."""
    asks = [*(fact.ask for fact in facts), *probes]
    return render("facts.sh.j2", asks=asks, as_made=AS_MADE)
