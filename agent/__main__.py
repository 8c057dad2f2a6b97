"""``agent apply STEP``, ``agent check``, ``agent remove STEP``: see the functions below."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Mapping
from typing import Any

from agent import record
from agent.difference import Difference
from agent.files import remove as remove_path
from agent.http import HealthRequest, ask
from agent.kinds import Kind, kinds
from agent.machine import Machine, StepError
from agent.record import Record
from agent.specs import SpecError, decode


def read_kind(name: str, spec: Mapping[str, Any]) -> Kind:
    """A step's kind with its spec.

    Raises:
        StepError: this agent does not know the kind, or the spec is not of it.
    """
    cls = kinds().get(name)
    if cls is None:
        raise StepError(f"the kind {name} is not known. Known: {', '.join(sorted(kinds()))}.")
    try:
        return decode(cls, dict(spec))
    except SpecError as error:
        raise StepError(f"the spec of {name} cannot be read: {error}") from None


def apply(machine: Machine, step: str, stack: str, text: str) -> dict[str, Any]:
    """Apply a step whose kind and spec are ``text``, as JSON; what came of it.

    Raises:
        StepError: it could not be done.
    """
    data = json.loads(text)
    kind, secret = read_kind(data["kind"], data["spec"]), bool(data.get("secret"))
    with contextlib.ExitStack() as locks:
        for name in sorted(kind.locks):
            locks.enter_context(machine.lock(name))
        record.begin(machine, step)
        try:
            applied = kind.apply(machine, step)
        except StepError as error:
            if error.unchanged:
                record.unmark(machine, step)
            raise
        digest = record.digest_of(data["spec"])
        saved = Record(
            step,
            data["kind"],
            stack,
            record.salted(machine, digest) if secret else digest,
            {} if secret else data["spec"],
            dict(applied.made),
            secret,
        )
        record.save(machine, saved)
        applied.finish()
    collect(machine)
    return dict(applied.result)


def collect(machine: Machine) -> list[str]:
    """Remove what steps made earlier and no record names any more; what was removed.

    A program stays as long as the service that runs it: its record names the program's path.
    """
    with machine.lock("collect"):
        return _collect(machine)


def _collect(machine: Machine) -> list[str]:
    notes = machine.path(f"{record.STEPS}/paths.list")
    known = set(notes.read_text("utf-8").splitlines()) if notes.exists() else set()
    text = ""
    for each in record.records(machine):
        text += json.dumps(each.spec)
        if not each.secret:
            with contextlib.suppress(StepError):
                known |= set(read_kind(each.kind, each.spec).paths())
    gone = sorted(path for path in known if path not in text)
    for path in gone:
        with machine.lock(path):
            remove_path(machine.path(path))
            remove_path(machine.path(f"{path}.seal"))
    notes.parent.mkdir(parents=True, exist_ok=True)
    notes.write_text("".join(f"{path}\n" for path in sorted(known - set(gone))), "utf-8")
    return gone


def check(machine: Machine) -> dict[str, Any]:
    """Every recorded step with its differences. Changes nothing."""
    steps: dict[str, Any] = {}
    for each in record.records(machine):
        steps[each.step] = {
            "stack": each.stack,
            "digest": each.digest,
            "differences": [vars(found) for found in _differences(machine, each)],
        }
    for step in record.unfinished(machine):
        entry = steps.setdefault(step, {"stack": "", "digest": "", "differences": []})
        entry["differences"].append(vars(Difference("last change", "not finished", "finished")))
    return steps


def _differences(machine: Machine, each: Record) -> list[Difference]:
    cls = kinds().get(each.kind)
    try:
        if cls is None:
            raise StepError(f"the kind {each.kind} is not known")
        kind = object.__new__(cls) if each.secret else read_kind(each.kind, each.spec)
        return kind.check(machine, each.made)
    except (StepError, OSError) as error:
        return [Difference("state", f"cannot be read ({error})", "readable")]


def remove(machine: Machine, step: str) -> None:
    """Take a step's work away, and forget it."""
    each = record.load(machine, step)
    if each is not None:
        cls = kinds().get(each.kind)
        if cls is not None:
            kind = object.__new__(cls) if each.secret else read_kind(each.kind, each.spec)
            locks = [] if each.secret else kind.locks
            with contextlib.ExitStack() as held:
                for name in sorted(locks):
                    held.enter_context(machine.lock(name))
                kind.remove(machine, each.made)
    record.forget(machine, step)
    collect(machine)


def main() -> int:
    """Do one thing; JSON on stdout, what goes on and errors on stderr. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="agent")
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("apply", "remove"):
        words = verbs.add_parser(verb)
        words.add_argument("step")
        words.add_argument("--stack", default="")
    words = verbs.add_parser("check")
    words.add_argument("--get", action="append", default=[], metavar="NAME=URL")
    options = parser.parse_args()
    machine = Machine()
    try:
        if options.verb == "check":
            asked = dict(each.split("=", 1) for each in options.get)
            answers = {name: ask(machine, HealthRequest(url)).json for name, url in asked.items()}
            said: dict[str, Any] = {"steps": check(machine), "answers": answers}
        elif options.verb == "apply":
            text = sys.stdin.buffer.readline().decode()
            said = apply(machine, options.step, options.stack, text)
        else:
            remove(machine, options.step)
            said = {}
    except (StepError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps(said, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
