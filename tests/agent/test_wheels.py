"""Wheels that machines share, with a pip and a uv that copy files; the real ones: tests/e2e."""

from __future__ import annotations

import hashlib
import io
import os
import platform
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.machine import Machine
from agent.wheels import SharedWheels, _packages
from declaration.source_files import ROOT

#: A Python with pip: fetches what the lock file names and is not there yet, as `pip download` does.
PIP = r"""#!/bin/sh
echo "asked: $*" >>'{log}'
while [ "$1" != --dest ]; do shift; done
[ ! -e '{index}/offline' ] || {{ echo "no route to host" >&2; exit 1; }}
sed -n 's/^\([a-z-]*\)==\([0-9.]*\).*/\1 \2/p' "$4" | while read -r name version; do
  file=$(echo "$name" | tr - _)-$version-py3-none-any.whl
  [ -e "$2/$file" ] || cp "{index}/$file" "$2/"
done
"""
#: Installs: notes what each package of the requirements holds.
UV = r"""#!/bin/sh
while [ "$1" != --python ]; do shift; done
venv=${{2%/bin/python}}
while [ "$1" != --find-links ]; do shift; done
[ ! -e '{index}/full' ] || {{ touch "$venv/half"; echo "no space left on device" >&2; exit 1; }}
sed -n 's/^\([a-z-]*\)==\([0-9.]*\).*/\1 \2/p' "$5" | while read -r name version; do
  cp "$2/$(echo "$name" | tr - _)-$version-py3-none-any.whl" '{installed}/'
done
"""


def wheel(content: bytes, tag: str = "py3-none-any") -> bytes:
    """A wheel; the same bytes for the same content."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(
            zipfile.ZipInfo("a-1.dist-info/WHEEL"), f"Wheel-Version: 1.0\nTag: {tag}\n"
        )
        archive.writestr(zipfile.ZipInfo("a.py"), content)
    return file.getvalue()


#: Packages of the index. A lock file has a dash in a name where a wheel has an underscore.
WHEELS = {
    "numpy-2.4.6": wheel(b"numbers"),
    "charset_normalizer-3.5.2": wheel(b"letters"),
    "click-8.5.1": wheel(b"doors"),
}
#: The same version for another platform, which the lock file names too.
ELSEWHERE = wheel(b"doors", "py3-none-win32")


def file_name(package: str) -> str:
    return f"{package}-py3-none-any.whl"


@dataclass
class Domain:
    """Machines with a directory in common, and a package index."""

    root: Path

    def __post_init__(self) -> None:
        self.index, self.shared, self.log = self.root / "i", self.root / "shared", self.root / "log"
        self.index.mkdir()
        self.shared.mkdir()
        for package, content in WHEELS.items():
            (self.index / file_name(package)).write_bytes(content)

    def lock(self, *packages: str) -> str:
        """A lock file of packages."""
        lines = ["# a comment"]
        for package in packages:
            name, version = package.rsplit("-", 1)
            digest = hashlib.sha256(WHEELS[package]).hexdigest()
            elsewhere = hashlib.sha256(ELSEWHERE).hexdigest()
            name = name.replace("_", "-")
            lines += [
                f'{name}=={version} ; python_version < "4" \\',
                f"    --hash=sha256:{digest} \\",
            ]
            lines += [f"    --hash=sha256:{elsewhere}"]
            lines += ["    # via something"]
        return "\n".join(lines) + "\n"

    def install(
        self, name: str, *packages: str, downloads: Mapping[str, int] | None = None
    ) -> dict[str, bytes]:
        """Install in a machine; what came from the domain, by package."""
        root = self.root / name
        installed, venv = root / "installed", root / "venv"
        for directory in (installed, venv):
            directory.mkdir(parents=True, exist_ok=True)
        lock = root / "lock.txt"
        lock.write_text(self.lock(*packages or WHEELS))
        for file, script in ((venv / "bin/python", PIP), (root / "uv", UV)):
            file.parent.mkdir(exist_ok=True)
            file.write_text(script.format(log=self.log, index=self.index, installed=installed))
            file.chmod(0o755)
        create = ["mkdir", str(venv)]
        uv = str(root / "uv")
        SharedWheels(
            str(self.shared), str(lock), str(venv), create, uv, downloads=downloads or {}
        ).do(Machine())
        assert {path.name for path in venv.iterdir()} <= {"bin"}, "it left its copies"
        found = {path.name.partition("-py3")[0]: path.read_bytes() for path in installed.iterdir()}
        shutil.rmtree(root)
        return found

    def fetches(self) -> int:
        """How often pip was asked."""
        return self.log.read_text().count("asked: ") if self.log.exists() else 0

    def kept(self) -> set[str]:
        """The packages that the domain has."""
        return {path.name.partition("-py3")[0] for path in self.shared.glob("*.whl")}


@pytest.fixture
def domain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Domain:
    monkeypatch.setattr("agent.pip._DIRECTORY", str(tmp_path))
    (tmp_path / "pip-1-py3-none-any.whl").touch()
    return Domain(tmp_path)


def test_the_second_machine_fetches_nothing(domain: Domain) -> None:
    assert domain.install("one") == WHEELS
    assert domain.kept() == set(WHEELS) and domain.fetches() == 1
    assert domain.install("two") == WHEELS
    assert domain.fetches() == 1


def test_what_is_there_already_is_not_counted(
    domain: Domain, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """What is left to fetch is all of it without what the domain has."""
    monkeypatch.setattr("agent.progress.on_disk", lambda place: 30_000_000)
    here = f"{sys.version_info[0]}.{sys.version_info[1]} {platform.machine()}"
    domain.install("one", downloads={here: 130_000_000, "2.7 vax": 1})
    assert "of this domain: 100 MB, 30 MB are there\n" in capfd.readouterr().err
    # A Python whose size nobody knows.
    domain.install("two", "numpy-2.4.6", downloads={"2.7 vax": 1})
    assert "of this domain, 30 MB are there\n" in capfd.readouterr().err


def test_two_machines_at_once_fetch_once(domain: Domain) -> None:
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(domain.install, ("one", "two"))) == [WHEELS, WHEELS]
    assert domain.fetches() == 1


def test_without_the_directory_nothing_is_done(domain: Domain) -> None:
    domain.shared.rmdir()
    assert domain.install("one") == {} and domain.fetches() == 0


def test_another_lock_file_removes_what_it_does_not_name(domain: Domain) -> None:
    domain.install("one")
    assert domain.install("one", "numpy-2.4.6") == {"numpy-2.4.6": WHEELS["numpy-2.4.6"]}
    assert domain.kept() == {"numpy-2.4.6"} and domain.fetches() == 2
    assert len(list(domain.shared.iterdir())) == 3  # with the lock and one stamp


def test_a_package_index_out_of_reach_is_said_and_no_failure(
    domain: Domain, capfd: pytest.CaptureFixture[str]
) -> None:
    (domain.index / "offline").touch()
    assert domain.install("one") == {}
    assert "no route to host" in capfd.readouterr().err
    (domain.index / "offline").unlink()
    assert domain.install("one") == WHEELS


def test_what_is_half_installed_goes(domain: Domain, capfd: pytest.CaptureFixture[str]) -> None:
    """Else the installation that follows would take it for whole."""
    (domain.index / "full").touch()
    assert domain.install("one") == {}  # and the virtual environment is a new one
    assert "no space left" in capfd.readouterr().err


# A machine of the domain that somebody has taken over


def test_another_file_of_the_name_is_not_used(domain: Domain) -> None:
    domain.install("one")
    wheel = domain.shared / file_name("click-8.5.1")
    wheel.write_bytes(b"a trap")
    found = domain.install("two")
    assert "click-8.5.1" not in found and found["numpy-2.4.6"] == WHEELS["numpy-2.4.6"]


def test_a_wheel_for_another_platform_is_not_used(domain: Domain) -> None:
    """The lock file has its hash, and uv would go by its name."""
    domain.install("one")
    (domain.shared / file_name("click-8.5.1")).write_bytes(ELSEWHERE)
    assert set(domain.install("two")) == set(WHEELS) - {"click-8.5.1"}


def test_a_file_without_an_end_is_not_waited_for(
    domain: Domain, monkeypatch: pytest.MonkeyPatch
) -> None:
    domain.install("one")
    monkeypatch.setattr("agent.wheels._LARGEST", 1 << 20)
    with (domain.shared / file_name("click-8.5.1")).open("wb") as file:
        file.truncate(1 << 40)
    assert set(domain.install("two")) == set(WHEELS) - {"click-8.5.1"}


@pytest.mark.parametrize(
    "name",
    [
        "deep",
        *(pytest.param(name, marks=pytest.mark.sweep) for name in ("part", "lock")),
        file_name("click-8.5.1"),
    ],
)
def test_directories_stop_nobody(domain: Domain, name: str) -> None:
    there = os.open(domain.shared, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir(name, dir_fd=there)
        below = os.open(name, os.O_RDONLY, dir_fd=there)
        os.close(there)
        there = below
    os.close(there)
    domain.install("one")
    # Not even Python's own can remove it.
    subprocess.run(["rm", "-rf", domain.shared / name], check=True)


@pytest.mark.parametrize("name", ["lock", file_name("click-8.5.1"), "part"])
def test_no_link_is_followed(domain: Domain, tmp_path: Path, name: str) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    (domain.shared / name).symlink_to(precious)
    domain.install("one")
    assert precious.read_text() == "precious"
    stamps = [path for path in domain.shared.iterdir() if path.suffix == ".complete"]
    assert len(stamps) == (name != "lock")


def test_a_stamp_that_is_a_link_makes_no_file(domain: Domain, tmp_path: Path) -> None:
    domain.install("one")
    (stamp,) = domain.shared.glob("*.complete")
    stamp.unlink()
    stamp.symlink_to(tmp_path / "new")
    domain.install("two")
    assert not (tmp_path / "new").exists()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", ["lock", file_name("click-8.5.1")])
def test_a_pipe_is_not_waited_for(domain: Domain, name: str) -> None:
    os.mkfifo(domain.shared / name)
    domain.install("one")


@pytest.mark.parametrize("file", sorted((ROOT / "stt_server/locks").glob("req*.txt")), ids=str)
def test_every_package_of_the_lock_files_is_found(file: Path) -> None:
    text = file.read_text()
    packages = _packages(text)
    assert len(packages) == len(re.findall(r"^[\w.-]+==", text, re.MULTILINE)) > 5
    assert "".join(package.text for package in packages).count("--hash") == text.count("--hash")
