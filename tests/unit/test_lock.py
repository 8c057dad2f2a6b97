"""artifacts.lock and the pip locks say what the code fetches."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pulumi
import pytest

from agent.actions import Download, Git, Run, Verify
from agent.pip import PipInstall
from declaration import artifacts
from declaration.artifacts import (
    FILE,
    Artifact,
    Lock,
    LockedFile,
    hub_name,
    known_sums,
    locked_version,
    read_lock,
)
from declaration.problems import DeclarationError
from declaration.source_files import ROOT, tracked
from declaration.venv import UV_VERSION, uv_lock
from engines import ENGINES
from lock import catalogue, file, python
from roles.open_webui.service import VERSION as WEBUI_VERSION
from tests.unit.program import run, steps_of
from tests.unit.values import CPU, DEFAULTS, declared

SUM = "0" * 64
PLACES = ("version", "licence", "source", "verified")


def actions(value: Any) -> Iterator[Any]:
    """Every action that is anywhere in a step's spec."""
    if isinstance(value, Download | Git | PipInstall | Run | Verify):
        yield value
    elif dataclasses.is_dataclass(value):
        for each in dataclasses.fields(value):
            yield from actions(getattr(value, each.name))
    elif isinstance(value, list | tuple):
        for each in value:
            yield from actions(each)


def fetched() -> list[Any]:
    """What any engine, and every role, fetches without a source of the operator's."""
    found: list[Any] = []
    for name, engine in ENGINES.items():
        if name == "custom":
            continue
        settings = DEFAULTS if "cuda" in engine.devices else CPU
        model = {"model": "", "quantization": "auto"}
        declaration = declared(**{**settings, **model, "engine": name})
        found += [each for step in steps_of(declaration).values() for each in actions(step.spec)]
    return found


def test_the_lock_is_what_the_code_fetches() -> None:
    """Where this fails: ``make lock``."""
    assert file.text(catalogue.merged(read_lock())) == FILE.read_text()


def test_every_download_is_in_the_lock() -> None:
    """None is added without a word in the lock."""
    lock = read_lock().artifacts
    sources = {each.source for each in lock.values()}
    wheels = [each.lock.split("==")[0] for each in fetched() if isinstance(each, PipInstall)]
    gits = [each for each in fetched() if isinstance(each, Git)]
    downloads = [each.url for each in fetched() if isinstance(each, Download)]
    assert {f"pkg:pypi/{name}" for name in wheels} <= lock.keys() and wheels
    assert {each.repository for each in gits} <= sources and len(gits) >= 2
    assert {each.commit for each in gits} <= {each.version for each in lock.values()}
    missing = {url for url in downloads if not any(url.startswith(each) for each in sources)}
    assert missing == set() and len(downloads) >= 4


def test_what_is_known_reaches_the_machine() -> None:
    """A sum that is in the lock and that nobody compares would be for show."""
    found = fetched()
    verified = {each.directory: each.sums for each in found if isinstance(each, Verify)}
    # Speaches has its models where the hub keeps them; the own server has directories.
    assert len(verified) >= 3 and any(place.endswith("/snapshots/*") for place in verified)
    assert any("model.bin" in sums for sums in verified.values())
    sums = [each.sums for each in found if isinstance(each, Download)]
    compared = {name: each[name] for each in sums for name in each}
    for name in ("rustup-init", "ggml-base-q8_0.bin", "vosk-model-small-en-us-0.15.zip"):
        assert len(compared[name]) == 64
    programs = [each.argv for each in found if isinstance(each, Run)]
    hubs = [argv[2] for argv in programs if argv[1:] and argv[1].endswith("/fetch_model.py")]
    assert "deepdml/faster-whisper-large-v3-turbo-ct2" in {each.split("@")[0] for each in hubs}
    for each in hubs:
        repository, _, revision = each.partition("@")
        assert revision == locked_version(hub_name(repository)), each
    for wheel in known_sums("pkg:pypi/uv").values():
        assert f"--hash=sha256:{wheel}" in uv_lock()


def test_a_lock_leaves_out_what_the_overrides_beside_it_say() -> None:
    """And what those of the files say that it builds on."""
    locks, webui = "stt_server/locks", "roles/open_webui/machine"
    assert {each: found for each in python.sources() if (found := python.overrides(each))} == {
        f"{webui}/requirements.in": [f"{webui}/overrides.txt"],
        "requirements-dev.in": [f"{locks}/overrides-vosk.txt"],
        f"{locks}/requirements-parakeet-cuda.in": [f"{locks}/overrides-parakeet-cuda.txt"],
        f"{locks}/requirements-vosk.in": [f"{locks}/overrides-vosk.txt"],
    }
    there = {name for name in tracked(ROOT) if re.search(r"(^|/)overrides[^/]*\.txt$", name)}
    used = {name for each in python.sources() for name in python.overrides(each)}
    assert used == there, "no .in uses it: call it after its requirements*.in"


@pytest.mark.parametrize("each", catalogue.wanted(), ids=lambda each: each.name)
def test_an_entry_says_where_it_is_from_and_what_is_compared(each: Artifact) -> None:
    said = read_lock().artifacts[each.name]
    assert said.licence and said.source and said.verified
    # Whoever has sums says where they are from; nothing else is a sum.
    known = [found for found in said.files.values() if found.sha256]
    assert bool(known) <= bool(said.sums)
    assert all(re.fullmatch(r"[0-9a-f]{64}", found.sha256) for found in known)


def test_another_version_in_the_code_has_no_sums() -> None:
    has = rf"has {UV_VERSION} of pkg:pypi/uv, and 9 is wanted\. Run: make lock"
    with pytest.raises(DeclarationError, match=has):
        known_sums("pkg:pypi/uv", "9")
    with pytest.raises(DeclarationError, match="does not have pkg:x"):
        known_sums("pkg:x", "1")
    assert known_sums("pkg:huggingface/somebody/else") == {}


def test_sums_of_another_version_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    old = Artifact("pkg:a", "1", "MIT", "x", "y", "z", {"f": LockedFile(1, SUM)})
    kept = Lock({old.name: old}, {})
    for version, files in (("1", 1), ("2", 0), ("", 1)):
        new = dataclasses.replace(old, version=version, sums="", files={})
        monkeypatch.setattr(catalogue, "wanted", lambda new=new: [new])
        (found,) = catalogue.merged(kept).artifacts.values()
        assert (len(found.files), found.version) == (files, version or "1")


@pytest.mark.parametrize(
    "text", ["", "{", '{"artifacts": [{}], "packages": {}, "licences": {}}', "[]"]
)
def test_a_lock_that_cannot_be_read(text: str, tmp_path: Path) -> None:
    place = tmp_path / "artifacts.lock"
    place.write_text(text)
    with pytest.raises(
        DeclarationError,
        match=r"artifacts\.lock: it cannot be read .* git checkout -- artifacts\.lock",
    ):
        read_lock(place)


def test_the_program_says_so_before_it_registers_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("components.program.locked", lambda: read_lock(tmp_path / "none"))
    with pytest.raises(pulumi.RunError, match="git checkout -- none"):
        run("cpu")


def test_writing_changes_nothing(tmp_path: Path) -> None:
    place = tmp_path / "again"
    place.write_text(file.text(read_lock()))
    assert read_lock(place) == read_lock()
    assert artifacts.download_sizes(Path("no/such.txt")) == {}


def test_no_address_of_a_package_index_is_in_the_lock() -> None:
    assert {each.source for each in read_lock().artifacts.values() if "pypi" in each.name} == {
        "the Python package index"
    }


# pip locks


@pytest.mark.parametrize("source", python.sources())
def test_a_pip_lock_has_what_its_source_pins(source: str) -> None:
    """Where this fails: ``make lock``."""
    text = (ROOT / python.lock_of(source)).read_text()
    found = {
        re.sub(r"[-_.]+", "-", each.name).lower(): each.version for each in python.packages(text)
    }
    for line in (ROOT / source).read_text().splitlines():
        if line and not line.startswith(("#", "-")):
            name, version = re.fullmatch(r"([\w.-]+)(?:\[.*\])?(?:==([\w.]+)|<.*)?", line).groups()  # type: ignore[union-attr]
            assert version in (None, found[name.replace("_", "-").lower()]), line


def test_every_pip_lock_has_its_sizes() -> None:
    """Progress is told from them."""
    packages = read_lock().packages
    own = [each.purl for each in catalogue.wanted() if each.uv_project]
    assert sorted(packages) == sorted([*map(python.lock_of, python.sources()), *own])
    for name, sizes in packages.items():
        assert sizes["x86_64" if name in own else "3.11 x86_64"] > 1_000_000, name
    assert len(own) == 1, "Speaches"


def test_versions_that_the_code_has_too() -> None:
    text = (ROOT / "roles/open_webui/machine/requirements.txt").read_text()
    assert f"open-webui=={WEBUI_VERSION} " in text
    assert uv_lock().startswith(f"uv=={UV_VERSION} \\\n")


def test_what_a_lock_pins() -> None:
    text = (
        f"one==1.0 \\\n    --hash=sha256:{SUM} \\\n    --hash=sha256:{'1' * 64}\n"
        f"two-a[x]==2.0+cu ; sys_platform == 'win32' \\\n    --hash=sha256:{SUM}\n"
        "    # via one\n# a comment\n"
    )
    first, second = python.packages(text)
    assert (first.name, first.version, first.marker, len(first.sums)) == ("one", "1.0", "", 2)
    assert (second.name, second.version) == ("two-a", "2.0+cu")
    assert not python.installed(second.marker, "3.11", "x86_64")
    assert python.installed("python_full_version < '3.12'", "3.11", "x86_64")
    assert not python.installed("platform_machine == 'aarch64'", "3.11", "x86_64")


def test_what_is_excluded_is_in_no_lock() -> None:
    text = "a==1 ; sys_platform == 'never' \\\n    --hash=sha256:0\nb==1 \\\n    --hash=sha256:1\n"
    assert python.without_excluded(text) == "b==1 \\\n    --hash=sha256:1\n"


def test_a_package_without_a_wheel_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own build would run as root in machines, with what has no hash."""
    wheel = """[[packages]]
name = "{}"
wheels = [{{url = "https://x.example/a-1-py3-none-any.whl", size = 9}}]
"""
    source = """[[packages]]
name = "old"
sdist = {url = "https://x.example/old-1.tar.gz", size = 9}
"""
    said = [wheel.format("one"), wheel.format("one") + source + wheel.format("two")]
    monkeypatch.setattr(python, "_uv", lambda *_: said.pop(0))
    assert set(python.download_sizes("uv", "x.txt").values()) == {9}
    with pytest.raises(SystemExit, match=r"x\.txt: there is no wheel of old, and nothing is built"):
        python.download_sizes("uv", "x.txt")


def test_the_wheel_that_fits_is_counted() -> None:
    def wheel(tags: str, size: int) -> dict[str, Any]:
        return {"url": f"https://x.example/a/one-1.0-{tags}.whl", "size": size}

    one: dict[str, Any] = {
        "wheels": [
            wheel("cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64", 10),
            wheel("cp312-cp312-manylinux_2_17_x86_64", 20),
            wheel("cp311-cp311-manylinux_2_39_x86_64", 40),
            wheel("cp311-cp311-macosx_11_0_arm64", 80),
            wheel("py3-none-any", 160),
        ]
    }
    source: dict[str, Any] = {
        "sdist": {"url": "https://x.example/b-1.tar.gz", "size": 1000},
        "wheels": [],
    }
    windows = {"marker": "sys_platform == 'win32'", "wheels": [wheel("py3-none-any", 7)]}
    listed = [one, source, windows]
    assert python._size(listed, "3.11", "x86_64") == 1010
    assert python._size(listed, "3.12", "x86_64") == 1020
    assert python._size(listed, "3.11", "aarch64") == 1160
    mac = {"wheels": [wheel("cp311-cp311-macosx_11_0_arm64", 80)]}
    assert python._size([one, mac], "3.11", "x86_64") == 0
    # An index that tells no sizes.
    assert python._size([{"wheels": [wheel("py3-none-any", 0)]}], "3.11", "x86_64") == 0


def test_a_lock_is_json_with_a_line_for_each_file() -> None:
    lines = FILE.read_text().splitlines()
    assert len([line for line in lines if '"sha256"' in line]) == sum(
        len(each.files) for each in read_lock().artifacts.values()
    )
    json.loads(FILE.read_text())
