"""Certificates of a service: an operator's own, and that of a machine's own authority."""

from __future__ import annotations

from pathlib import Path

from agent.kinds.run import Run
from agent.kinds.secret_files import SecretFile, SecretFiles

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


def own_certificate(
    public: str, key: str, places: tuple[str, str], owner: str, service: str = ""
) -> SecretFiles:
    """An operator's certificate, a file here, and its key, a secret, in two places of a machine.

    Both are written before ``service`` starts again: one without the other fits nothing.
    """
    certificate = SecretFile(places[0], Path(public).read_text(encoding="utf-8"), owner=owner)
    return SecretFiles([certificate, SecretFile(places[1], key, owner=owner)], service)
