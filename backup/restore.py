"""``make restore``: what an archive holds, back on this host or on another one; then `up`.

Every part can be repeated: what is there already is left as it is, so a restore that stopped goes
on if it is run again.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

from backup import archive, files, passphrase, state, volumes
from backup.archive import Archive, Manifest
from backup.cli import scratch
from backup.files import Placed
from backup.say import say
from backup.volumes import Volume
from declaration.interrupt import PATIENCE, running
from declaration.problems import DeclarationError
from declaration.stack_file import PROJECT
from host.client import Client
from operations.host import OperationError, refuse_others, run_program
from operations.stack import ROOT, read_stack
from roles.ollama_server import PROGRAMS
from stack.checks import OLLAMA_ROLE
from stack.declare import Declaration

#: What Pulumi takes as the name of a stack.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


def restore(file: str, name: str, connection: str, pool: str, force: bool) -> None:
    """Restore an archive.

    ``name`` is the stack's name here, ``connection`` and ``pool`` the host and its storage pool;
    empty: as in the archive. ``force`` replaces files that differ.

    Raises:
        OperationError: it could not be done; the text says how far it came, and what to do.
        DeclarationError: the stack's file does not fit to this host or version.
    """
    if not file:
        raise OperationError("name the archive: make restore FILE=…")
    with archive.opened(Path(file).absolute()) as source, _work() as work:
        manifest = source.manifest
        stack = name or manifest.stack
        if not _NAME.fullmatch(stack):
            raise OperationError(f"STACK: {stack} is not a stack name. Use letters and digits.")
        say(f"stack {stack}, as it was at {manifest.time}")
        here = {"connection": connection, "pool": pool}
        placed, key = _read_files(source, stack, here, Path(work))
        exported = _json(source, archive.STATE, Path(work, "state"))
        _refuse_loss(placed, force)
        state.place_passphrase(ROOT, key)
        built = state.is_there(exported, stack)
        for path in files.place(placed):
            say(f"restored {_shown(path)}")
        if not built:
            state.import_kept(exported, stack, manifest.stack)
            say("the stack has its id and its keys again")
        _run(".venv/bin/python", "-m", "bootstrap.host", stack)
        declaration = _declared(stack, manifest)
        refuse_others(declaration, stack)
        _bring_volumes(source, declaration, stack, Path(work))
        _run("bootstrap/pulumi.sh", stack, "up")
        _fetch_models(manifest, declaration)
    say(f"restored. The keys: make outputs STACK={stack} SHOW_SECRETS=1")


def _work() -> tempfile.TemporaryDirectory[str]:
    """Room for what is in an archive, on a disk: /tmp may be in memory."""
    return tempfile.TemporaryDirectory(dir="/var/tmp", prefix="incus-stt-restore-")


def _read_files(
    source: Archive, stack: str, here: Mapping[str, str], work: Path
) -> tuple[list[Placed], str]:
    """The archive's files, to be placed, and its state's passphrase.

    ``here`` are settings that are others on this host; empty: as in the archive.
    """
    manifest = source.manifest
    seal = work / "seal"
    source.extract(archive.SEAL, seal)
    key = passphrase.unseal(seal.read_text(encoding="utf-8"), passphrase.ask(new=False))
    placed: list[Placed] = []
    for number, entry in enumerate(manifest.files):
        content = work / f"file-{number}"
        source.extract(entry.member, content)
        if entry.path == files.stack_file(manifest.stack):
            _adapt(content, here, key)
        target = files.target_of(ROOT, entry, manifest.stack, stack)
        placed.append(Placed(content, target, entry.mode))
    return placed, key


def _refuse_loss(placed: list[Placed], force: bool) -> None:
    """Nothing of the operator's is replaced unasked."""
    differ = files.conflicts(ROOT, placed)
    if differ and not force:
        raise OperationError(
            f"the archive has other versions of {', '.join(map(_shown, differ))}. Nothing was "
            "changed. Move them away, or let the archive's replace them: FORCE=1."
        )


def _adapt(stack_file: Path, here: Mapping[str, str], key: str) -> None:
    """Change settings in a stack's file; Pulumi keeps the rest as it is."""
    given = {name: value for name, value in here.items() if value}
    if not given:
        return
    with scratch(PROJECT, "adapted", key) as project:
        project.stack_file.write_bytes(stack_file.read_bytes())
        project.init()
        for name, value in given.items():
            project.set(f"{PROJECT}:{name}", value)
        stack_file.write_bytes(project.stack_file.read_bytes())


def _shown(path: Path) -> str:
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def _json(source: Archive, member: str, target: Path) -> dict[str, object]:
    source.extract(member, target)
    found: dict[str, object] = json.loads(target.read_text(encoding="utf-8"))
    return found


def _declared(stack: str, manifest: Manifest) -> Declaration:
    """The stack, as this version reads it."""
    try:
        return read_stack(stack)
    except DeclarationError as error:
        if not manifest.left_out:
            raise
        raise OperationError(
            f"{error}\nThe archive has no {', '.join(manifest.left_out)}, which can be large. Put "
            "it where it was, then run this again."
        ) from None


def _bring_volumes(source: Archive, declaration: Declaration, stack: str, work: Path) -> None:
    """Make the volumes of the archive that are not there yet, within projects made by `up`."""
    manifest = source.manifest
    client = Client(declaration.settings.host_connection)
    known = {(each.domain, each.name): each for each in volumes.volumes_of(declaration)}
    absent: list[tuple[Volume, str]] = []
    for entry in manifest.volumes:
        volume = known.get((entry.domain, entry.name))
        if volume is None:
            raise OperationError(
                f"the archive has the volume {entry.domain}/{entry.name}, which stack {stack} does "
                "not have. Use the topology of the archive: FORCE=1."
            )
        owner = volumes.stack_of(client, volume)
        if owner is None:
            absent.append((volume, entry.member))
        elif owner == manifest.id:
            say(f"the volume {volume.full_name} is this stack's own, and stays as it is")
        else:
            raise OperationError(
                f"there is a volume {volume.full_name} already, and this stack does not own it. To "
                "have the archive's in its place, delete it with all that is on it, then run this "
                f"again: {volumes.removal(client.connection, volume)}"
            )
    domains = sorted({volume.domain for volume, _ in absent})
    if domains:
        names = ["stack/id", *domains, *(f"{domain}/project" for domain in domains)]
        _run("bootstrap/pulumi.sh", stack, "up", *(f"--target=**::{name}" for name in names))
    for number, (volume, member) in enumerate(absent):
        content = work / f"volume-{number}"
        source.extract(member, content)
        volumes.bring(client.connection, volume, content)
        content.unlink()
        say(f"restored the volume {volume.full_name}")


def _run(*words: str) -> None:
    """A part of `make up`, which says itself what goes wrong.

    Raises:
        OperationError: it failed.
    """
    with running(words, cwd=ROOT, grace=PATIENCE) as part:  # Pulumi takes SIGTERM as "at once"
        pass
    if part.returncode:
        raise OperationError(
            f"{' '.join(words[:3])} failed (above: why). What was restored stays: put that right, "
            "then run this again."
        )


def _fetch_models(manifest: Manifest, declaration: Declaration) -> None:
    """Fetch Ollama's models that were there and that the stack's file does not name."""
    settings = declaration.settings
    for machine in declaration.topology.with_role(OLLAMA_ROLE):
        noted = manifest.models.get("ollama", {}).get(machine.full_name, [])
        for model in [each for each in noted if each not in settings.ollama.models]:
            words = ["pull", str(settings.ollama.port), model]
            program = ROOT / PROGRAMS / "models.py"
            try:
                run_program(settings.host_connection, machine, program, words, deadline=7200)
                say(f"{machine.full_name} has Ollama's model {model} again")
            except OperationError as error:
                say(f"{machine.full_name}: Ollama's model {model} could not be pulled: {error}")
