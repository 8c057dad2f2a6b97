"""Ctrl-C ends every command with a line and the status 130, and what it started ends first."""

from __future__ import annotations

import ast
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from declaration.source_files import ROOT

#: They import nothing of the other rooms, so they end by themselves.
BY_THEMSELVES = {
    *("agent/__main__.py", "forge/__main__.py", "stt_server/__main__.py"),
    "roles/stt_gateway/machine/__main__.py",
}
STOPPED = "incus-stt: stopped\n"


def entry_points(root: Path) -> Iterator[str]:
    """What ``python -m`` runs here: not what a machine or Pulumi runs by a file's name."""
    for file in sorted(root.glob("*/**/*.py")):
        name = file.relative_to(root)
        if {"tests", "plugins", ".venv"} & set(name.parts):
            continue
        if name.name != "__main__.py" and ("machine" in name.parts or "stt_server" in name.parts):
            continue
        text = file.read_text(encoding="utf-8")
        if "\ndef main(" in text and '\nif __name__ == "__main__":' in text:
            yield name.as_posix()


ENTRY_POINTS = list(entry_points(ROOT))


def first_own_import(file: Path) -> str:
    """The first module of this project that a file imports."""
    own = {path.name for path in ROOT.iterdir() if path.is_dir()}
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [each.name for each in node.names] if isinstance(node, ast.Import) else []
        for name in names:
            if name.partition(".")[0] in own:
                return name
    return ""


def test_all_entry_points_are_looked_at() -> None:
    there = {file.relative_to(ROOT).as_posix() for file in ROOT.glob("[a-z]*/**/__main__.py")}
    assert there <= set(ENTRY_POINTS) and there >= BY_THEMSELVES
    assert {"bootstrap/host.py", "roles/document.py"} <= set(ENTRY_POINTS)


@pytest.mark.parametrize("name", sorted(set(ENTRY_POINTS) - BY_THEMSELVES))
def test_an_entry_point_is_ready_for_it_before_the_rest_is_imported(name: str) -> None:
    assert first_own_import(ROOT / name) == "declaration.interrupt"


#: Runs an entry point whose main() is interrupted at once.
INTERRUPTED = """
import ast, sys
name, package = sys.argv[1:3]
tree = ast.parse(open(name).read())
for node in tree.body:
    if isinstance(node, ast.FunctionDef) and node.name == "main":
        node.body = ast.parse("raise KeyboardInterrupt").body
names = {"__name__": "__main__", "__package__": package, "__file__": name}
exec(compile(tree, name, "exec"), names)
"""


@pytest.mark.sample(1)
@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_an_interrupted_main_ends_without_a_traceback(name: str) -> None:
    package = name.rpartition("/")[0].replace("/", ".")
    words = [sys.executable, "-c", INTERRUPTED, name, package]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60)
    said = "" if name in BY_THEMSELVES else STOPPED
    assert (done.returncode, done.stdout, done.stderr) == (130, "", said)


def test_another_exception_has_its_traceback() -> None:
    words = [sys.executable, "-c", "import declaration.interrupt; print(1 / 0)"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "ZeroDivisionError" in done.stderr


def script(file: Path, body: str) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"#!/bin/sh\n{body}\n")
    file.chmod(0o755)


def start(*words: str, cwd: Path, first: Path | None = None) -> subprocess.Popen[str]:
    """A command as at a terminal: in a process group of its own, which Ctrl-C reaches."""
    path = f"{first}:{os.environ['PATH']}" if first else os.environ["PATH"]
    return subprocess.Popen(
        ["env", "--default-signal=INT", sys.executable, "-m", *words],
        cwd=cwd,
        env={**os.environ, "PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(*files: Path) -> None:
    end = time.monotonic() + 30
    while not all(file.exists() for file in files):
        assert time.monotonic() < end, files
        time.sleep(0.02)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The project, with a directory for scripts of a test's own."""
    root = tmp_path / "project"
    (root / "bootstrap").mkdir(parents=True)
    for path in ROOT.iterdir():
        if path.name != "bootstrap" and not path.name.startswith("."):
            (root / path.name).symlink_to(path)
    for name in ("__init__.py", "host.py"):
        if (ROOT / "bootstrap" / name).exists():
            shutil.copy(ROOT / "bootstrap" / name, root / "bootstrap" / name)
    return root


#: A script that tidies up for a moment, and says that it has; its names: $1 begins, $2 ends.
TIDY = """trap 'sleep 1; touch "{end}"; exit 130' {signals}
touch "{begin}"
for n in $(seq 600); do sleep 0.1; done"""


@pytest.mark.parametrize("group", [True, False], ids=["at a terminal", "it only"])
def test_what_the_set_up_runs_ends_before_it(project: Path, tmp_path: Path, group: bool) -> None:
    """The other scripts hear of it too at a terminal; else it is passed on."""
    signals = "INT" if group else "TERM"
    files = {name: (tmp_path / f"{name}.begin", tmp_path / f"{name}.end") for name in "ab"}
    for name, run in (("a", "cli.sh"), ("b", "incus.sh")):
        begin, end = files[name]
        script(project / "bootstrap" / run, TIDY.format(begin=begin, end=end, signals=signals))
    script(project / "bootstrap" / "image.sh", f"touch {tmp_path}/image")
    with start("bootstrap.host", "cpu", cwd=project) as process:
        wait_for(*(begin for begin, _ in files.values()))
        (os.killpg if group else os.kill)(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert all(end.exists() for _, end in files.values())
    assert (process.returncode, out, err) == (130, "", STOPPED)
    assert not (tmp_path / "image").exists()


def test_another_ctrl_c_does_not_cut_off_what_tidies_up(project: Path, tmp_path: Path) -> None:
    begin, end = tmp_path / "begin", tmp_path / "end"
    script(project / "bootstrap" / "cli.sh", "")
    body = TIDY.format(begin=begin, end=end, signals="INT")
    script(project / "bootstrap" / "incus.sh", body.replace("'sleep", '\'trap "" INT; sleep'))
    with start("bootstrap.host", "cpu", cwd=project) as process:
        wait_for(begin)
        for _ in range(3):
            os.killpg(process.pid, signal.SIGINT)
            time.sleep(0.2)
        _, err = process.communicate(timeout=60)
        assert end.exists()
    assert (process.returncode, err) == (130, STOPPED)


def test_a_set_up_that_fails_ends_the_other_half(project: Path, tmp_path: Path) -> None:
    begin, end = tmp_path / "begin", tmp_path / "end"
    script(project / "bootstrap" / "cli.sh", TIDY.format(begin=begin, end=end, signals="TERM"))
    script(
        project / "bootstrap" / "incus.sh", f"while [ ! -e {begin} ]; do sleep 0.1; done; exit 3"
    )
    with start("bootstrap.host", "cpu", cwd=project) as process:
        _, err = process.communicate(timeout=60)
        assert end.exists()
    assert (process.returncode, err) == (3, "")


@pytest.mark.parametrize(
    "words", [("doctor", "--stack", "cpu"), ("operations", "status", "--stack", "cpu")], ids=str
)
def test_what_asks_a_host_ends_at_once(words: tuple[str, ...], tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    script(tmp_path / "bin" / "incus", f"touch {asked}; exec sleep 60")
    with start(*words, cwd=ROOT, first=tmp_path / "bin") as process:
        wait_for(asked)
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.endswith(STOPPED) and "Traceback" not in err
