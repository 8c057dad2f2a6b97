"""``python -m bench preview|up [--runs N]``: what the program costs beside the work itself.

``preview``: without changes, beside an empty Pulumi program; ``--machines N`` sets up so many.
``up``: the stack `dev` from nothing, beside a plain shell script of the same steps (plain.sh). The
two take turns; medians count. Run it in the shell that ``eval "$(make -s env)"`` gives, on a
machine that does nothing else.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STACK = "bench"
INFRA = """domains:
  stt-bench:
    trust_level: semi-trusted
    subnet: 10.213.77.0/24
    machines:
      gpu-server: {roles: [base_system, stt_server]}
"""
ANOTHER = "      machine{number}: {{roles: [base_system]}}\n"
CONFIG = """config:
  stt:infra: infra.bench.yml
  stt:engine: faster-whisper
  stt:model: ./models/tiny-digits
  stt:quantization: int8
  stt:image: images:debian/12
  stt:keepModels: false
"""
EMPTY = """name: empty
runtime: {{name: python, options: {{toolchain: pip, virtualenv: {venv}}}}}
backend: {{url: "file://{state}"}}
"""


def run(*argv: str, cwd: Path) -> None:
    """Run a program.

    Raises:
        SystemExit: it failed.
    """
    environment = {**os.environ, "PULUMI_CONFIG_PASSPHRASE": "bench", "PULUMI_BACKEND_URL": ""}
    environment.pop("PULUMI_CONFIG_PASSPHRASE_FILE", None)
    environment.pop("PULUMI_BACKEND_URL")
    done = subprocess.run(  # noqa: S603  # programs of this file
        argv, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(argv)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def copy_project(into: Path, machines: int = 1) -> Path:
    """The project with a stack of its own; the virtual environment is shared."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"],  # noqa: S607  # the operator's own git
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        target = into / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target)
    (into / ".venv").symlink_to(ROOT / ".venv")
    (into / "state").mkdir()
    (into / "infra.bench.yml").write_text(
        INFRA + "".join(ANOTHER.format(number=number) for number in range(2, machines + 1))
    )
    (into / "stacks" / f"Pulumi.{STACK}.yaml").write_text(CONFIG)
    run("pulumi", "stack", "init", STACK, cwd=into)
    return into


def empty_project(into: Path) -> Path:
    """A Pulumi program that does nothing."""
    state = into / "state"
    state.mkdir(parents=True)
    (into / "Pulumi.yaml").write_text(EMPTY.format(venv=ROOT / ".venv", state=state))
    (into / "__main__.py").write_text("")
    run("pulumi", "stack", "init", STACK, cwd=into)
    run("pulumi", "up", "--yes", "--skip-preview", cwd=into)
    return into


def seconds(work: Callable[[], None]) -> float:
    """How long it takes."""
    began = time.monotonic()
    work()
    return time.monotonic() - began


def compare(names: tuple[str, str], pairs: list[tuple[float, float]]) -> None:
    """Print medians and their ratio."""
    one, two = zip(*pairs, strict=True)
    for name, figures in zip(names, (one, two), strict=True):
        shown = " ".join(f"{figure:.2f}" for figure in figures)
        print(f"{name}: median {statistics.median(figures):.2f} s ({shown})")
    print(f"ratio of the medians: {statistics.median(two) / statistics.median(one):.2f}")


def preview(work: Path, runs: int, machines: int) -> None:
    """A preview without changes, beside an empty program's."""
    ours, empty = copy_project(work / "ours", machines), empty_project(work / "empty")
    try:
        # Not all machines at once: the benchmark is of the preview.
        run("pulumi", "up", "--yes", "--skip-preview", "--parallel", "4", "-s", STACK, cwd=ours)
        look = ("pulumi", "preview", "-s", STACK)
        for place in (empty, ours):
            run(*look, cwd=place)
        pairs = [
            (
                seconds(lambda: run(*look, cwd=empty)),
                seconds(lambda: run(*look, "--expect-no-changes", cwd=ours)),
            )
            for _ in range(runs)
        ]
    finally:
        run("pulumi", "destroy", "--yes", "--skip-preview", "-s", STACK, cwd=ours)
    compare(("empty program", "this program"), pairs)


def up(work: Path, runs: int) -> None:
    """From nothing, beside a plain shell script."""
    ours, plain = copy_project(work / "ours"), str(ROOT / "bench" / "plain.sh")
    words = ("--yes", "--skip-preview", "--suppress-progress", "-s", STACK)
    pairs: list[tuple[float, float]] = []
    for _ in range(runs):
        run(plain, "down", cwd=ROOT)
        script = seconds(lambda: run(plain, "up", cwd=ROOT))
        run(plain, "down", cwd=ROOT)
        program = seconds(lambda: run("pulumi", "up", *words, cwd=ours))
        run("pulumi", "destroy", *words[:-2], "-s", STACK, cwd=ours)
        pairs.append((script, program))
        print(f"plain {script:.1f} s, pulumi up {program:.1f} s", flush=True)
    compare(("plain script", "pulumi up"), pairs)


def main() -> None:
    """Measure one thing."""
    parser = argparse.ArgumentParser(prog="bench")
    parser.add_argument("what", choices=["preview", "up"])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--machines", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        if options.what == "preview":
            preview(Path(name), options.runs, options.machines)
        else:
            up(Path(name), options.runs)


if __name__ == "__main__":
    main()
