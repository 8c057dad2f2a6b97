"""``agent apply STEP``, ``check``, ``examine``, ``remove STEP``, ``status``, ``update``.

A preview starts this in every machine, so what is imported here is little.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from agent import record
from agent.cards import ask_cards
from agent.difference import Difference
from agent.files import PART, File, discard, write
from agent.files import read as read_text
from agent.files import remove as remove_path
from agent.kinds import Kind, kind_named, kinds
from agent.machine import Machine, StepError, say
from agent.record import Record
from agent.specs import SpecError, decode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: Paths of programs that steps of this machine have made, each until it is removed.
_PATHS = f"{record.STEPS}/paths.list"
_USAGE = (
    "check, compile, status, update, examine [NAME…], apply|remove STEP [--stack ID]; "
    "--root DIR for tests"
)
#: What stands beside a program's path meanwhile, and beside a file's afterwards.
_BESIDE = ("", ".part", ".before", ".unpacked", ".seal", f".seal{PART}")


def read_kind(name: str, spec: Mapping[str, Any], *, lenient: bool = False) -> Kind:
    """A step's kind with its spec; ``lenient`` leaves out what this agent does not know in it.

    Raises:
        StepError: this agent does not know the kind, or the spec is not of it.
    """
    cls = kind_named(name)
    if cls is None:
        raise StepError(f"the kind {name} is not known. Known: {', '.join(sorted(kinds()))}.")
    try:
        return decode(cls, dict(spec), lenient=lenient)
    except SpecError as error:
        raise StepError(f"the spec of {name} cannot be read: {error}") from None


def _recorded_kind(each: Record, *, lenient: bool = False) -> Kind:
    """The kind of a record; of a secret one, without its spec."""
    cls = kind_named(each.kind)
    if cls is not None and each.secret:
        return cls.without_spec()
    return read_kind(each.kind, each.spec, lenient=lenient)


def _read_step(text: str) -> tuple[Kind, str, dict[str, Any], bool]:
    """Kind, its name, its spec, and whether it holds secrets."""
    try:
        data = json.loads(text)
        name, spec, secret = str(data["kind"]), dict(data["spec"]), bool(data.get("secret"))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise StepError("stdin is not a step: a line of JSON with kind and spec.") from None
    kind = read_kind(name, spec)
    if secret and not kind.takes_secrets:
        raise StepError(f"A step of the kind {name} cannot hold secrets.")
    return kind, name, spec, secret


def apply(machine: Machine, step: str, stack: str, text: str) -> dict[str, Any]:
    """Apply a step whose kind and spec are ``text``, as JSON; what came of it.

    Raises:
        StepError: it could not be done.
    """
    kind, name, spec, secret = _read_step(text)
    with contextlib.ExitStack() as locks:
        for lock in (f"step {step}", *sorted(kind.locks)):
            locks.enter_context(machine.lock(lock))
        fresh = record.begin(machine, step, kind.written())
        try:
            _note(machine, kind.paths())
            applied = kind.apply(machine, step)
        except StepError as error:
            # What an earlier run left unfinished is so still.
            if error.unchanged and fresh:
                record.unmark(machine, step)
            raise
        digest = record.digest_of(spec)
        if secret:
            record.make_salt(machine)
            digest = record.salted(machine, digest)
        saved = Record(
            step,
            name,
            stack,
            digest,
            {} if secret else spec,
            dict(applied.made),
            secret,
            written=list(kind.written()),
            names=record.programs_in(json.dumps(spec, ensure_ascii=False)) if secret else [],
        )
        record.save(machine, saved)
        applied.finish()
        _discard_stale(machine, step, kind.written())
        record.unmark(machine, step)
    try:
        collect(machine)
    except (StepError, OSError) as error:  # the step is applied all the same
        say(f"What is no longer used could not be removed: {error}")
    return dict(applied.result)


def _discard_stale(machine: Machine, step: str, keep: Sequence[str]) -> None:
    """Remove the files that the step wrote earlier, and that no step writes now."""
    kept = {path for each in record.records(machine) if each.step != step for path in each.written}
    for path in sorted(record.touched(machine, step) - kept - set(keep)):
        discard(machine, path)


def _known(machine: Machine) -> set[str]:
    return set((read_text(machine.path(_PATHS)) or "").splitlines())


def _note(machine: Machine, paths: Sequence[str]) -> None:
    """Remember paths before they are made, so that none is forgotten, whatever happens."""
    if paths:
        with machine.lock("collect"):
            _write_known(machine, _known(machine) | set(paths))


def _write_known(machine: Machine, paths: set[str]) -> None:
    discard(machine, f"{_PATHS}{PART}")  # of a run that was cut off
    if paths != _known(machine):
        text = "".join(f"{path}\n" for path in sorted(paths))
        write(machine, File(_PATHS, text, "0600"))


def collect(machine: Machine) -> list[str]:
    """Remove what steps made earlier and no record names now; what was removed.

    A program stays as long as the service that runs it: its record names the program's path. So
    does one that a step works on right now.
    """
    gone: list[str] = []
    with machine.lock("collect"):
        known = _known(machine)
        for path in sorted(known):
            if _named(machine, path):
                continue
            with contextlib.suppress(StepError), machine.lock(path, deadline=0):
                # Only now does nobody record it meanwhile.
                if not _named(machine, path):
                    for suffix in _BESIDE:
                        remove_path(machine.path(f"{path}{suffix}"))
                    gone.append(path)
        _write_known(machine, known - set(gone))
    return gone


def _named(machine: Machine, path: str) -> bool:
    """Whether a record names a path, also one that this agent cannot read."""
    words = (json.dumps(path, ensure_ascii=ascii_only)[1:-1] for ascii_only in (False, True))
    text = record.texts(machine)
    return any(word in text for word in words)


def check(machine: Machine) -> dict[str, Any]:
    """Every recorded step with its differences, what services say (``Service.reports``), the cards.

    The salt goes with them, so that the state's secrets can be compared with those that were
    applied. Changes nothing.
    """
    steps: dict[str, Any] = {}
    answers: dict[str, Any] = {}
    cards = ask_cards(machine)
    for each in record.records(machine):
        kind, found = _checked(machine, each)
        steps[each.step] = {
            "stack": each.stack,
            "digest": each.digest,
            "differences": [vars(difference) for difference in found],
        }
        if kind:
            answers |= kind.answers(machine)
    for step in record.unfinished(machine):
        entry = steps.setdefault(step, {"stack": "", "digest": "", "differences": []})
        entry["differences"].append(vars(Difference("last change", "not finished", "finished")))
    salt = record.salt(machine)
    return {"steps": steps, "answers": answers, "salt": salt, "cards": cards()}


def _checked(machine: Machine, each: Record) -> tuple[Kind | None, list[Difference]]:
    """A recorded step's kind, as far as it can be read, and where the machine differs from it."""
    kind = None
    try:
        kind = _recorded_kind(each)
        return kind, kind.check(machine, each.made)
    except (StepError, OSError) as error:
        found = Difference("state", f"cannot be read ({error})", "readable")
    except Exception as error:  # one step must not silence the others; its text may be a secret
        found = Difference("state", f"cannot be read ({type(error).__name__})", "readable")
    if kind is None:  # of another version of this program
        with contextlib.suppress(Exception):
            kind = _recorded_kind(each, lenient=True)
    return kind, [found]


def remove(machine: Machine, step: str) -> None:
    """Take a step's work away, and forget it. It works on a full disk too.

    Raises:
        StepError: it could not be done.
    """
    # Not at the top, so that a check starts sooner; but before anything changes, for the file that
    # this comes from may be replaced meanwhile.
    from agent.kinds.service import abandon

    with contextlib.ExitStack() as locks:
        locks.enter_context(machine.lock(f"step {step}"))
        each = record.load(machine, step)
        if each is not None:
            with contextlib.suppress(OSError):  # no room for the mark: the record stays until last
                record.begin(machine, step)
            _take_away(machine, each, locks)
        abandon(machine, step)
        _discard_stale(machine, step, ())
        record.forget(machine, step)
    with contextlib.suppress(OSError):
        collect(machine)


def _take_away(machine: Machine, each: Record, locks: contextlib.ExitStack) -> None:
    try:
        kind = _recorded_kind(each, lenient=True)
    except StepError as error:
        say(f"{each.step} was applied by another version, and what it made stays: {error}")
        return
    for name in [] if each.secret else sorted(kind.locks):
        locks.enter_context(machine.lock(name))
    kind.remove(machine, each.made)


def _options(words: Sequence[str]) -> dict[str, str]:
    """From the words: ``verb``, ``step``, ``stack`` and ``root``; ``names`` with spaces between.

    Raises:
        SystemExit: the words are not a call of the agent.
    """
    options, rest = {"stack": "", "root": "/"}, list(words)
    for name in options:  # argparse takes 4 ms to import
        if f"--{name}" in rest[:-1]:
            place = rest.index(f"--{name}")
            options[name] = rest[place + 1]
            del rest[place : place + 2]
    match rest:
        case ["check" | "compile" | "status" | "update" as verb]:
            return {**options, "verb": verb, "step": ""}
        case ["apply" | "remove" as verb, step]:
            return {**options, "verb": verb, "step": step}
        case ["examine" as verb, *names]:
            return {**options, "verb": verb, "names": " ".join(names)}
    raise SystemExit(f"agent {' '.join(words)}: not known. Known: {_USAGE}.")


def main() -> int:
    """Do one thing; JSON on stdout, progress and errors on stderr. Returns the exit status."""
    options = _options(sys.argv[1:])
    os.umask(0o022)
    machine = Machine(Path(options["root"]))
    try:
        if options["verb"] == "check":
            said = check(machine)
        elif options["verb"] == "status":
            from agent.status import status  # not at the top: a check does without

            said = status(machine)
        elif options["verb"] == "update":
            from agent.updates import update

            said = update(machine)
        elif options["verb"] == "examine":
            from agent.examine import examine

            said = examine(machine, options["names"].split())
        elif options["verb"] == "apply":
            text = machine.stdin.readline().decode(errors="replace")
            said = apply(machine, options["step"], options["stack"], text)
        elif options["verb"] == "remove":
            remove(machine, options["step"])
            said = {}
        else:
            from agent.compiled import add_compiled  # not at the top: done once in a machine

            add_compiled(Path(sys.argv[0]))
            said = {}
    except (StepError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps(said, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
