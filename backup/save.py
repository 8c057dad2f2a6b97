"""``make backup``: a stack's files, state, data and the names of its models, as one archive."""

from __future__ import annotations

import fcntl
import json
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from backup import archive, files, passphrase, state, volumes
from backup.archive import Manifest, VolumeEntry
from backup.cli import pulumi
from backup.say import say
from host.client import Client, HostError
from host.reading import read_machine
from operations.host import OperationError, refuse_others
from operations.removal import shown_size
from operations.stack import ROOT, read_stack
from operations.state import known_id
from stack.checks import OLLAMA_ROLE
from stack.declare import Declaration


def save(stack: str, name: str, whole: bool) -> Path:
    """Write the archive; where it is. ``whole``: with the volumes that hold models.

    Raises:
        OperationError: it could not be written; there is none then.
        DeclarationError: the stack's file is wrong.
    """
    declaration = read_stack(stack)
    refuse_others(declaration, stack, known_id(stack))
    target = Path(name or f"{stack}-{datetime.now():%Y%m%d-%H%M%S}.incus-stt").absolute()
    if not target.parent.is_dir():
        raise OperationError(f"FILE: there is no directory {target.parent}. Make it, or name one.")
    if target.is_dir():
        raise OperationError(f"FILE: {target} is a directory. Name a file in it.")
    exported = state.export(stack)
    paths, left_out = files.named(declaration, stack, whole)
    entries, contents = files.collect(ROOT, paths)
    key = passphrase.ask(new=True)
    room = tempfile.TemporaryDirectory(dir=target.parent, prefix="incus-stt-backup-")
    with _one_at_a_time(stack), room as work:
        contents[archive.STATE] = _text(Path(work, "state"), json.dumps(exported))
        sealed = passphrase.seal(state.current_passphrase(), key)
        contents[archive.SEAL] = _text(Path(work, "seal"), sealed)
        now = datetime.now(UTC)
        volume_entries = _volumes(declaration, whole, Path(work), contents)
        manifest = Manifest(
            stack=stack,
            id=state.stack_id(exported),
            time=now.isoformat(timespec="seconds"),
            commit=_commit(),
            versions=_versions(declaration),
            domains=_domains(declaration),
            models=_models(declaration),
            files=entries,
            volumes=volume_entries,
            left_out=left_out,
        )
        archive.write(target, manifest, contents)
    for path in left_out:
        say(f"left out, as it can be large: {path} (WHOLE=1 takes it too)")
    return target


def _text(file: Path, text: str) -> Path:
    file.write_text(text, encoding="utf-8")
    return file


@contextmanager
def _one_at_a_time(stack: str) -> Iterator[None]:
    """Two backups of a stack would take each other's snapshots away."""
    with (ROOT / files.stack_file(stack)).open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise OperationError(
                f"another backup of stack {stack} is under way. Wait for it to finish."
            ) from None
        yield


def _volumes(
    declaration: Declaration, whole: bool, work: Path, contents: dict[str, Path]
) -> list[VolumeEntry]:
    """Save the volumes into ``work``; as the manifest lists them."""
    connection = declaration.settings.host_connection
    wanted = [each for each in volumes.volumes_of(declaration) if each.data or whole]
    if not wanted:
        return []
    entries: list[VolumeEntry] = []
    with volumes.snapshots(connection, wanted) as seconds:
        names = ", ".join(each.full_name for each in wanted)
        paused = f"; machines were paused for {seconds:.1f} s" if seconds else ""
        say(f"snapshots of {names}{paused}")
        for number, each in enumerate(wanted):
            file = work / f"volume-{number}"
            volumes.export(connection, each, file)
            member = f"{archive.VOLUMES}/{each.domain}/{each.name}.tar.gz"
            contents[member] = file
            entries.append(VolumeEntry(each.domain, each.name, member))
            say(f"saved the volume {each.full_name}: {shown_size(file.stat().st_size)}")
    return entries


def _commit() -> str:
    """The commit of this checkout; empty if git cannot say."""
    words = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603
    except OSError:
        return ""
    except subprocess.TimeoutExpired:
        say("git did not say within 60 s which commit this is: the archive does not name it")
        return ""
    return done.stdout.strip()


def _versions(declaration: Declaration) -> dict[str, str]:
    try:
        server = Client(declaration.settings.host_connection).get("/1.0") or {}
    except HostError as error:
        raise OperationError(error.user_message) from None
    return {
        "pulumi": pulumi("version").strip().removeprefix("v"),
        "incus": str((server.get("environment") or {}).get("server_version", "")),
    }


def _domains(declaration: Declaration) -> dict[str, Any]:
    return {
        plan.name: {
            "bridge": plan.bridge,
            "subnet": str(plan.subnet),
            "machines": {machine.name: str(machine.address) for machine in plan.machines},
        }
        for plan in declaration.topology.domains
    }


def _models(declaration: Declaration) -> dict[str, dict[str, list[str]]]:
    """The models of each machine: those of the stack, and what Ollama says that it has."""
    stt = {each.machine.full_name: [each.model.name] for each in declaration.services}
    ollama: dict[str, list[str]] = {}
    for machine in declaration.topology.with_role(OLLAMA_ROLE):
        said = read_machine(declaration.settings.host_connection, machine.domain, machine.name)
        tags = said.answers.get("ollama_tags") if said else None
        if not isinstance(tags, dict):
            say(f"{machine.full_name}: Ollama does not answer: only the stack's models are noted")
            tags = {}
        names = [str(each["name"]) for each in tags.get("models") or []]
        ollama[machine.full_name] = sorted({*declaration.settings.ollama.models, *names})
    return {"stt": stt, "ollama": ollama}
