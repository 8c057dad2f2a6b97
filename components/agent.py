"""The agent's arrival in a machine: one file, packed here, whose name holds its digest."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shlex
import time
import zipfile
from functools import cache
from pathlib import Path

import pulumi

from agent.difference import Difference
from components.command import Command, Host
from components.incus_object import egress_command, is_another
from declaration.topology import MachinePlan
from host.client import incus_words, shell, user_cache
from host.objects import INSTANCE
from host.read import AGENT, MachineState

_NO_ANSWER = Difference(f"agent {AGENT}", "does not answer", "answers")
ROOT = Path(__file__).resolve().parent.parent
#: Seconds for which an agent stays in the user's cache.
_KEPT = 30 * 24 * 3600

#: Makes sure of Python, then takes the file from stdin.
_ARRIVE = """set -eu
command -v python3 >/dev/null || {
  export DEBIAN_FRONTEND=noninteractive
  { apt-get -q update && apt-get -q -y --no-install-recommends install python3; } >&2
}
mkdir -p /opt/incus-stt
trap 'rm -f "$1.part"' EXIT
cat >"$1.part"
chmod 0644 "$1.part"
python3 -IS "$1.part" compile >/dev/null
mv -f "$1.part" "$1"
ln -sfn "$1" /opt/incus-stt/agent.new
mv -fT /opt/incus-stt/agent.new /opt/incus-stt/agent
for old in /opt/incus-stt/agent-*.pyz; do [ "$old" = "$1" ] || rm -f "$old"; done
"""


@cache
def packed() -> bytes:
    """The agent as one file that Python runs; the same bytes for the same sources."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        sources = {"__main__.py": (ROOT / "agent" / "entry.py").read_bytes()}
        for path in sorted((ROOT / "agent").rglob("*.py")):
            sources[path.relative_to(ROOT).as_posix()] = path.read_bytes()
        for name, content in sources.items():
            file.writestr(zipfile.ZipInfo(name), content)
    return archive.getvalue()


@cache
def agent_file() -> Path:
    """The packed agent in the user's cache, where `up` puts it; a preview writes nothing."""
    digest = hashlib.sha256(packed()).hexdigest()[:12]
    path = user_cache() / f"agent-{digest}.pyz"
    if not path.exists() and not pulumi.runtime.is_dry_run():
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_old(path.parent)
        part = path.with_suffix(f".{os.getpid()}")
        part.write_bytes(packed())
        part.replace(path)
    return path


def _remove_old(cache: Path) -> None:
    """Remove agents of earlier versions; one that is still in use somewhere is packed again."""
    for file in cache.glob("agent-*"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - file.stat().st_mtime > _KEPT:
                file.unlink()


class Agent(Command):
    """The agent of a machine; everything in the machine depends on it."""

    def __init__(
        self,
        plan: MachinePlan,
        host: Host,
        instance: Command,
        late: pulumi.Output[MachineState | None] | None,
        way_out: str,
        opts: pulumi.ResourceOptions,
    ) -> None:
        file = agent_file()
        name = plan.resource("agent")
        inside = ["exec", plan.name, "--", "sh", "-c", _ARRIVE, "sh", f"/opt/incus-stt/{file.name}"]
        command = incus_words(host.connection, inside, plan.domain)
        receive = shlex.join([*shell(host.connection), command])
        if way_out:  # an image may lack Python
            there = ["exec", plan.name, "--", "sh", "-c", "command -v python3"]
            unless = f"--unless={incus_words(host.connection, there, plan.domain)}"
            receive = f"{egress_command(host, way_out, unless)} {shlex.quote(command)}"
        cached = f'"${{XDG_CACHE_HOME:-$HOME/.cache}}/incus-stt/{file.name}"'
        super().__init__(
            name,
            host,
            # A file that is not there is an error, and not an empty agent.
            create=f"{receive} <{cached}",
            identity=[instance.id],
            drift=agent_drift(host, plan),
            late=None if late is None else late.apply(lambda found: [] if found else [_NO_ANSWER]),
            here=True,
            opts=pulumi.ResourceOptions.merge(
                opts, pulumi.ResourceOptions(depends_on=[instance], deleted_with=instance)
            ),
        )


def agent_drift(host: Host, plan: MachinePlan) -> list[Difference]:
    """An agent that does not answer, in a machine that runs or was made again.

    A machine that is gone has none.
    """
    if host.live is None or not host.known(plan.resource("agent")):
        return []
    instance = host.live.find(INSTANCE.name, plan.name, plan.domain)
    if instance is None:
        return host.gone(plan.resource("agent"), f"machine {plan.name}")
    if (plan.domain, plan.name) in host.live.machines:
        return []
    another = is_another(host, plan.resource("instance"), instance)
    if instance.get("status") != "Running" and not another:
        return []
    return [_NO_ANSWER]
