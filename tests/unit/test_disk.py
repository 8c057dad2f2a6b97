"""The size of a machine's root disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from declaration.problems import DeclarationError
from declaration.sizes import size_bytes
from tests.unit.program import Program, run
from tests.unit.values import STACKS, declared


def with_disk(directory: Path, disk: Any) -> str:
    """The topology of the stack cpu, with the size of a disk."""
    infra = yaml.safe_load((STACKS / "infra.cpu.yml").read_text())
    infra["domains"]["ai-tools"]["machines"]["webui"]["disk"] = disk
    file = directory / "infra.yml"
    file.write_text(yaml.safe_dump(infra))
    return str(file)


def roots(program: Program) -> dict[str, Any]:
    """The root disk of each machine that does not leave it to the profile."""
    return {
        name.split("/")[1]: command.data["devices"]["root"]
        for name, command in program.commands.items()
        if name.endswith("/instance") and "root" in command.data["devices"]
    }


@pytest.mark.parametrize(("pool", "warned"), [("default", True), ("fast", False)])
def test_a_disk_has_its_size_or_it_is_said(tmp_path: Path, pool: str, warned: bool) -> None:
    """The pool ``fast`` is on ZFS, the other one a directory."""
    found = run("cpu", infra=with_disk(tmp_path, "20GiB"), pool=pool)
    disk = {"type": "disk", "pool": pool, "path": "/", "size": "20GiB"}
    assert roots(found) == {"webui": disk}
    [said] = [text for text in found.log if "prjquota" in text] or [""]
    assert bool(said) is warned
    assert not warned or "ai-tools/webui: the storage pool default is a directory" in said


def test_without_a_size_nothing_is_said() -> None:
    found = run("cpu")
    assert roots(found) == {} and "prjquota" not in str(found.log)


@pytest.mark.parametrize("disk", ["much", "20 gib", "50%", "0", "", 20])
def test_what_is_no_size_is_refused(tmp_path: Path, disk: Any) -> None:
    with pytest.raises(DeclarationError) as refused:
        declared(infra=with_disk(tmp_path, disk))
    said = str(refused.value)
    assert "domains.ai-tools.machines.webui.disk" in said
    assert "20GiB" in said or "in quotes" in said


@pytest.mark.parametrize(
    ("text", "size"),
    [("20GiB", 20 << 30), ("500 MB", 500_000_000), ("7", 7), ("7B", 7), ("7K", None), ("", None)],
)
def test_a_size_as_incus_reads_it(text: str, size: int | None) -> None:
    assert size_bytes(text) == size
