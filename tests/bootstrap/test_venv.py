"""bootstrap/venv.sh installs only what the requirements name by hash; with this machine's pip."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from declaration.source_files import ROOT

FILES = {"bootstrap/requirements-pip.txt": 1, "requirements.txt": 21, "requirements-dev.txt": 21}
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


class Clone:
    """A copy of bootstrap/ with a package index in a directory, which has one wheel."""

    def __init__(self, tmp: Path) -> None:
        self.root, self.index, self.installed = tmp / "clone", tmp / "index", tmp / "installed"
        shutil.copytree(ROOT / "bootstrap", self.root / "bootstrap")
        # pip of the tests' own virtual environment, which installs into another directory.
        programs = self.root / ".venv" / "bin"
        programs.mkdir(parents=True)
        pip = programs / "pip"
        pip.write_text(f'#!/bin/sh\nexec {sys.executable} -m pip "$@"\n')
        pip.chmod(0o755)
        self.index.mkdir()
        self.fill("1")
        self.make("two")  # in the place of pip
        (self.root / "bootstrap" / "requirements-pip.txt").write_text(self.locked("two"))

    def fill(self, value: str) -> None:
        """Make the wheel, with a module of this value."""
        self.make("one", value)

    def make(self, name: str, value: str = "0") -> Path:
        """Make a wheel; where it is."""
        made = self.index / f"{name}-1.0-py3-none-any.whl"
        tag = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        with zipfile.ZipFile(made, "w") as wheel:
            wheel.writestr(f"{name}.py", f"VALUE = {value}\n")
            about = f"{name}-1.0.dist-info"
            data = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
            wheel.writestr(f"{about}/METADATA", data)
            wheel.writestr(f"{about}/WHEEL", tag)
            wheel.writestr(f"{about}/RECORD", "")
        return made

    def locked(self, name: str = "one") -> str:
        """What a wheel is now, as a lock file has it."""
        found = hashlib.sha256((self.index / f"{name}-1.0-py3-none-any.whl").read_bytes())
        return f"{name}==1.0 \\\n    --hash=sha256:{found.hexdigest()}\n"

    def install(self, requirements: str) -> subprocess.CompletedProcess[str]:
        (self.root / "requirements.txt").write_text(requirements)
        return subprocess.run(
            ["sh", str(self.root / "bootstrap" / "venv.sh"), "requirements.txt"],
            env={
                "PATH": os.environ["PATH"],
                "PIP_CONFIG_FILE": os.devnull,
                "PIP_NO_INDEX": "1",
                "PIP_FIND_LINKS": str(self.index),
                "PIP_TARGET": str(self.installed),
            },
            capture_output=True,
            text=True,
        )

    @property
    def modules(self) -> list[str]:
        """What is installed."""
        return sorted(each.stem for each in self.installed.glob("*.py"))

    @property
    def stamped(self) -> bool:
        return (self.root / ".venv" / ".requirements").exists()


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


def test_what_has_its_hash_is_installed(clone: Clone) -> None:
    done = clone.install(clone.locked())
    assert (done.returncode, clone.stamped) == (0, True), done.stderr
    assert (clone.installed / "one.py").read_text() == "VALUE = 1\n"
    assert clone.modules == ["one", "two"]


def test_pip_itself_is_installed_once(clone: Clone) -> None:
    assert clone.install(clone.locked()).returncode == 0
    shutil.rmtree(clone.installed)
    clone.fill("2")
    assert clone.install(clone.locked()).returncode == 0
    assert clone.modules == ["one"]


def test_another_file_under_the_same_name_is_refused(clone: Clone) -> None:
    locked = clone.locked()
    clone.fill("2")
    done = clone.install(locked)
    assert (done.returncode, clone.stamped) == (1, False)
    assert "DO NOT MATCH THE HASHES" in done.stderr
    assert "use another index" in done.stderr
    assert clone.modules == ["two"]  # pip itself


def test_what_has_no_hash_is_refused(clone: Clone) -> None:
    done = clone.install("one==1.0\n")
    assert (done.returncode, clone.stamped) == (1, False)
    assert "require-hashes" in done.stderr
    assert clone.modules == ["two"]


@pytest.mark.parametrize(("file", "least"), FILES.items())
def test_every_package_has_its_hashes(file: str, least: int) -> None:
    blocks = re.split(r"\n(?=\S)", (ROOT / file).read_text().strip())
    assert len(blocks) >= least
    assert [block for block in blocks if not HASH.search(block)] == []


def test_no_address_is_in_them() -> None:
    """Which index a machine asks is its own matter."""
    assert [file for file in FILES if "://" in (ROOT / file).read_text()] == []
