"""``python3 -m forge comment|status|verified|drift …``: what the workflows do on a forge.

- ``comment NUMBER``: the review on stdin becomes the pull request's comment on that stack;
- ``status STACK COMMIT pending|success|failure``: note how a stack's ``up`` went;
- ``verified STACK COMMIT``: fail where the stack has not run this commit;
- ``drift STACK``: the report of ``make drift`` on stdin becomes an issue; without one it is closed.
"""

from __future__ import annotations

import argparse
import re
import sys

from forge.actions import report_drift, require_status, set_status, write_comment
from forge.api import Forge, ForgeError, read_forge


def _stack(text: str) -> str:
    if not re.fullmatch(r"[\w.-]+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a stack name")
    return text


def _commit(text: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{40,64}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a full commit hash")
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="forge")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("comment").add_argument("number", type=int)
    for name in ("status", "verified", "drift"):
        verb = verbs.add_parser(name)
        verb.add_argument("stack", type=_stack)
        if name != "drift":
            verb.add_argument("commit", type=_commit)
        if name == "status":
            verb.add_argument("state", choices=["pending", "success", "failure"])
    return parser


def _run(forge: Forge, options: argparse.Namespace) -> str:
    match options.verb:
        case "comment":
            return write_comment(forge, options.number, sys.stdin.read())
        case "status":
            return set_status(forge, options.commit, options.stack, options.state)
        case "verified":
            return require_status(forge, options.commit, options.stack)
        case _:
            return report_drift(forge, options.stack, sys.stdin.read())


def main() -> None:
    """Do it, and say what was done.

    Raises:
        SystemExit: it failed.
    """
    options = _parser().parse_args()
    try:
        print(f"incus-stt: {_run(read_forge(), options)}", file=sys.stderr)
    except ForgeError as error:
        sys.exit(f"incus-stt: error: {error}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
