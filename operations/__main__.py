"""python -m operations VERB --stack NAME: beside `up`, on what runs; and words for `up`."""

from __future__ import annotations

import argparse
import json
import sys

import declaration.interrupt  # noqa: F401  # Ctrl-C ends it with a line
from declaration.problems import DeclarationError
from operations import ai_access, status, updates
from operations.host import OperationError, refuse_others
from operations.measure import measure
from operations.memory import flush, report
from operations.removal import removal
from operations.stack import ROOT, read_stack
from operations.state import known_id
from operations.targets import key_targets, stt_targets
from stack.declare import Declaration


def main() -> int:
    """Do one thing; returns the exit status."""
    parser = argparse.ArgumentParser(prog="operations")
    verbs = ["status", "updates", "vram", "flush", "measure", "removal", "stt-targets"]
    verbs += ["key-targets", "ai-access", "ai-access-targets", "ai-access-verify", "hand-over"]
    parser.add_argument("verb", choices=verbs)
    parser.add_argument("--stack", required=True)
    parser.add_argument("--json", action="store_true", help="for status")
    parser.add_argument("--client", default="", help="one of stt:clients, for key-targets")
    parser.add_argument("--domain", default="", help="who gets it, for ai-access-targets")
    parser.add_argument("--models", default="", help="names with spaces between, for measure")
    options = parser.parse_args()
    if options.verb == "removal":
        state = sys.stdin.read()
        if not state:
            return 1  # Pulumi has said why
        print("".join(f"{line}\n" for line in removal(json.loads(state))), end="")
        return 0
    if options.verb == "key-targets":
        print(" ".join(key_targets(ROOT, options.stack, options.client)))
        return 0
    declaration = read_stack(options.stack)
    if options.verb == "stt-targets":
        print(" ".join(f"--target={target}" for target in stt_targets(declaration)))
        return 0
    if options.verb == "ai-access-targets":
        found = ai_access.targets(declaration, options.stack, options.domain)
        print(" ".join(f"--target={target}" for target in found))
        return 0
    print(f"incus-stt: stack {options.stack}", file=sys.stderr)
    # `up` has seen whose machines they are, and writes the state just now.
    identity = "" if options.verb == "hand-over" else known_id(options.stack)
    refuse_others(declaration, options.stack, identity)
    return _do(declaration, options)


def _do(declaration: Declaration, options: argparse.Namespace) -> int:
    """Do what is about the stack's own machines."""
    if options.verb == "status":
        answers = status.ask(declaration)
        text = json.dumps(answers, indent=2, ensure_ascii=False)
        shown = [text] if options.json else status.lines(answers, status.coloured(sys.stdout))
        print("\n".join(shown))
        return 0 if status.works(answers) else 1
    if options.verb == "updates":
        good = True
        for machine, said in updates.update(declaration):
            print("\n".join(updates.lines(machine, said)), flush=True)
            good = good and updates.works(said)
        return 0 if good else 1
    if options.verb == "vram":
        print("\n".join(report(declaration)))
        return 0
    if options.verb == "measure":
        print("\n".join(measure(declaration, options.models)))
        return 0
    if options.verb == "ai-access":
        print("\n".join(ai_access.report(declaration, options.stack)))
        return 0
    if options.verb == "hand-over":
        print("\n".join(ai_access.hand_over(declaration)))
        return 0
    lines, good = (ai_access.verify if options.verb == "ai-access-verify" else flush)(declaration)
    print("\n".join(lines))
    return 0 if good else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (DeclarationError, OperationError) as error:
        sys.exit(f"incus-stt: error: {error}")
