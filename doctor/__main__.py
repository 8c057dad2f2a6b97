"""python -m doctor --stack NAME [--json]: the screen of ``make doctor``.

Exit status: 0 if nothing is broken, 1 where something is, 2 where it could not look. (`make`
itself makes 2 of both; with ``--json`` the ``state`` tells: ``unknown`` where it could not look.)
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import declaration.interrupt  # noqa: F401  # Ctrl-C ends it with a line
import doctor.checks  # noqa: F401  # it registers them
from declaration.problems import DeclarationError
from doctor.case import Case
from doctor.check import CHECKS, MACHINE_CHECKS
from doctor.finding import Finding, Mark, worst
from doctor.gather import gather
from doctor.screen import lines
from operations.host import OperationError
from operations.stack import read_stack
from operations.status import coloured


def findings(case: Case) -> list[Finding]:
    """What every check says, in the order of the screen."""
    found = [each for check in CHECKS for each in check(case)]
    for plan in (plan for plan in case.machines if case.examined(plan)):
        found += [each for check in MACHINE_CHECKS for each in check(case, plan)]
    return found


def told(stack: str, found: list[Finding]) -> dict[str, Any]:
    """The same as data, for ``--json``."""
    checks = [
        {"subject": f.subject, "state": f.mark.value, "found": f.found, "next": f.next}
        for f in found
    ]
    return {"stack": stack, "state": worst(found).value, "checks": checks}


def unknown(stack: str, error: str) -> dict[str, Any]:
    """What ``--json`` says where it could not look: the same keys, and why."""
    return {"stack": stack, "state": "unknown", "checks": [], "error": error}


def main() -> int:
    """Look, and say what was found. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="doctor")
    parser.add_argument("--stack", required=True)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    try:
        declaration = read_stack(options.stack)
        print(f"incus-stt: stack {options.stack}", file=sys.stderr)
        case = gather(declaration, options.stack)
    except (DeclarationError, OperationError) as error:
        print(f"incus-stt: error: {error}", file=sys.stderr)
        if options.json:
            print(json.dumps(unknown(options.stack, str(error)), indent=2, ensure_ascii=False))
        return 2
    found = findings(case)
    if options.json:
        print(json.dumps(told(options.stack, found), indent=2, ensure_ascii=False))
    else:
        print("\n".join(lines(found, coloured(sys.stdout))))
    return 1 if worst(found) is Mark.BROKEN else 0


if __name__ == "__main__":
    sys.exit(main())
