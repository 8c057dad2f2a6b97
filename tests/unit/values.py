"""Settings as the tests start from them, without Pulumi.

The stacks and topologies are the tests' own (``stacks/``): an operator may edit the project's.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import yaml

from declaration.source_files import ROOT
from gpu.cards import Card
from roles import ROLES
from stack.declare import Declaration, declare

STACKS = Path(__file__).parent / "stacks"
SCHEMA: dict[str, Any] = yaml.safe_load((ROOT / "Pulumi.yaml").read_text())["config"]
#: Every Whisper model fits on it, in every compute type.
CARD = Card("0000:01:00.0", "10de", "2684", "0", "RTX 4090", 24564, (8, 9), "560.35.03")


#: As far as the program looks at certificates.
PEM = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"


def certificate(root: Path, name: str = "DNS:stt.test") -> dict[str, Any]:
    """The settings of a certificate of the operator's."""
    files = {"certificate": str(root / "c.pem"), "certificateKey": str(root / "k.pem")}
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    words = ("req", "-x509", *key, "-subj", "/CN=t", "-days", "1")
    places = ("-keyout", files["certificateKey"], "-out", files["certificate"])
    names = ("-addext", f"subjectAltName={name}")
    subprocess.run(["openssl", *words, *names, *places], check=True, capture_output=True)
    return {"tls": "files", **files}


def own(name: str) -> str:
    """The path of a topology of the tests', as ``stt:infra`` has it."""
    return str((STACKS / name).relative_to(ROOT))


#: The defaults, with a GPU; and without one, with a model that fits.
DEFAULTS = {key.removeprefix("stt:"): item["default"] for key, item in SCHEMA.items()} | {
    "infra": own("infra.yml")
}
CPU = {**DEFAULTS, "infra": own("infra.cpu.yml"), "quantization": "int8", "model": "small"}


def declared(**settings: Any) -> Declaration:
    """The declaration of ``CPU`` with some settings changed."""
    return declare({**CPU, **settings}, ROLES, ROOT)


def change_rows() -> list[list[str]]:
    """The rows of docs/changes.md: setting, example, what is touched, effect."""
    text = (ROOT / "docs" / "changes.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def code(cell: str) -> str:
    """What a cell has as code."""
    return cell.strip("`")


#: What is not about what `up` makes: it lets it take over what is somebody else's, and in tests
#: nothing is; or `make doctor` judges by it.
NOT_OF_UP = ("stt:adopt", "stt:updates")


def changes() -> dict[str, Any]:
    """Every setting with the other value that docs/changes.md tries, as a stack's file has it."""
    return {
        code(row[0]).removeprefix("stt:"): yaml.safe_load(code(row[1]))
        for row in change_rows()
        if code(row[0]).startswith("stt:")
    }
