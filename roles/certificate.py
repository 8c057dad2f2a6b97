"""A certificate of a machine's own authority, for the outputs: who uses the service trusts it."""

from __future__ import annotations

from agent.kinds.run import Run

#: Prints the certificate in the file that it is given, as a line of JSON.
_SHOW = (
    "import json, pathlib, sys; "
    "print(json.dumps({'certificate': pathlib.Path(sys.argv[1]).read_text('ascii')}))"
)


def show_certificate(path: str, unit: str) -> Run:
    """What shows the certificate that ``unit`` has made, as the field ``certificate``."""
    return Run(
        ["python3", "-c", _SHOW, path],
        failure=f"The certificate of the authority that {unit} made cannot be read.",
        resolution=f"See journalctl -u {unit} in the machine.",
    )
