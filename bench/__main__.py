"""``python -m bench preview|simulated|up [--runs N]``: the program beside the work itself.

``preview``: without changes, beside an empty Pulumi program; ``--machines N`` sets up so many.
``simulated``: the same where only four machines are real, the rest copies (simulated.py).
``up``: the stack `dev` from nothing, beside a plain shell script of the same steps (plain.sh). The
two take turns; medians count. Run it in the shell that ``eval "$(make -s env)"`` gives, on a
machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

import declaration.interrupt  # noqa: F401  # Ctrl-C ends it with a line
from bench.cost import Cost, cost, show
from bench.simulated import Copies, digests, record, write_stand_in
from declaration.connection import Connection
from host.egress import SUFFIX

ROOT = Path(__file__).resolve().parent.parent
STACK = "bench"
#: Seconds that one run may take: with many machines an `up` takes long.
_DEADLINE = 7200
#: Machines beside the one with a service: only the distribution's packages.
LIGHT = {"roles": ["base_system"]}
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


def topology(*domains: list[str], service: bool = False) -> str:
    """An infra.yml with machines by name; with ``service`` the first has one."""
    found: dict[str, object] = {}
    for number, names in enumerate(domains):
        machines: dict[str, object] = dict.fromkeys(names, LIGHT)
        if service and not number:
            machines = {"gpu-server": {"roles": ["base_system", "stt_server"]}, **machines}
        found[f"stt-bench{number or ''}"] = {
            "trust_level": "semi-trusted",
            "subnet": f"10.213.{77 + number}.0/24",
            "machines": machines,
        }
    return yaml.safe_dump({"domains": found}, sort_keys=False)


def run(*argv: str, cwd: Path, first_on_path: Path | None = None) -> None:
    """Run a program.

    Raises:
        SystemExit: it failed, or hung.
    """
    environment = {**os.environ, "PULUMI_CONFIG_PASSPHRASE": "bench"}
    environment.pop("PULUMI_CONFIG_PASSPHRASE_FILE", None)
    environment.pop("PULUMI_BACKEND_URL", None)
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # Python compiles the project once
    if first_on_path:
        environment["PATH"] = f"{first_on_path}:{environment['PATH']}"
    try:
        done = subprocess.run(  # noqa: S603  # programs of this file
            argv,
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            timeout=_DEADLINE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        sys.exit(f"{' '.join(argv)} did not end within {_DEADLINE} s. See what it waits for.")
    if done.returncode:
        sys.exit(f"{' '.join(argv)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def copy_project(into: Path, infra: str) -> Path:
    """The project with a stack of its own; the virtual environment is shared."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"],  # noqa: S607  # the operator's own git
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        target = into / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target)
    (into / ".venv").symlink_to(ROOT / ".venv")
    (into / "state").mkdir()
    (into / "infra.bench.yml").write_text(infra)
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


def compare(names: tuple[str, str], pairs: list[tuple[Cost, Cost]]) -> None:
    """Print what each of the two costs, and what that means."""
    one, two = zip(*pairs, strict=True)
    for name, costs in zip(names, (one, two), strict=True):
        show(name, costs)
    medians = [statistics.median(each.seconds for each in costs) for costs in (one, two)]
    print(f"ratio of the medians: {medians[1] / medians[0]:.2f}")
    print(f"twice the first and 1 s: {2 * medians[0] + 1:.2f} s; the second: {medians[1]:.2f} s")


#: `up` sets up so many machines at once; the benchmark is of the preview.
UP = ("pulumi", "up", "--yes", "--skip-preview", "--parallel", "4", "-s", STACK)
DESTROY = ("pulumi", "destroy", "--yes", "--skip-preview", "-s", STACK)
LOOK = ("pulumi", "preview", "-s", STACK)


def compare_previews(ours: Path, empty: Path, runs: int, stand_in: Path | None = None) -> None:
    """Previews without changes, in turn."""

    def one() -> None:
        run(*LOOK, cwd=empty)

    def other() -> None:
        run(*LOOK, "--expect-no-changes", cwd=ours, first_on_path=stand_in)

    one()
    other()
    compare(("empty program", "this program"), [(cost(one), cost(other)) for _ in range(runs)])


def preview(work: Path, runs: int, machines: int, service: bool) -> None:
    """A preview without changes, beside an empty program's."""
    names = [f"machine{number}" for number in range(1 + service, machines + 1)]
    infra, empty = topology(names, service=service), empty_project(work / "empty")
    ours = copy_project(work / "ours", infra)
    try:
        run(*UP, cwd=ours)
        compare_previews(ours, empty, runs)
    finally:
        run(*DESTROY, cwd=ours)


def simulated(work: Path, runs: int, machines: int) -> None:
    """The same with two real machines in each of two domains, and copies of one of them."""
    real, domains = ["machine1", "machine2"], ("stt-bench", "stt-bench1")
    ours = copy_project(work / "ours", topology(real, real))
    empty, pool = empty_project(work / "empty"), "default"
    state = work / "state.json"
    words = ("-s", STACK, "--file", str(state))
    try:
        run(*UP, cwd=ours)
        answers = record(Connection("local"), pool)
        # The bridges are closed soon after the last step.
        while any(f"{domain}{SUFFIX}" in answers["networks"] for domain in domains):
            time.sleep(1)
            answers = record(Connection("local"), pool)
        run("pulumi", "stack", "export", *words, cwd=ours)
    finally:
        run(*DESTROY, cwd=ours)
    exported = json.loads(state.read_text())
    names = [f"machine{number}" for number in range(3, machines // 2 + 1)]
    for number, domain in enumerate(domains):
        copies = Copies(domain, "machine2", f"10.213.{77 + number}.2", names)
        answers, exported = copies.answers(answers), copies.state(exported)
    state.write_text(json.dumps(exported))
    run("pulumi", "stack", "import", *words, cwd=ours)
    every = [*real, *names]
    (ours / "infra.bench.yml").write_text(topology(every, every))
    stand_in = write_stand_in(digests(answers, exported), pool, work / "stand-in")
    compare_previews(ours, empty, runs, stand_in)
    calls = (work / "stand-in" / "calls").read_text().splitlines()
    resources = len(exported["deployment"]["resources"])
    print(f"{len(every) * 2} machines, {resources} resources, {len(calls) // (runs + 1)} calls")


def up(work: Path, runs: int) -> None:
    """From nothing, beside a plain shell script."""
    ours, plain = (
        copy_project(work / "ours", topology([], service=True)),
        str(ROOT / "bench" / "plain.sh"),
    )
    words = ("--yes", "--skip-preview", "--suppress-progress", "-s", STACK)
    pairs: list[tuple[Cost, Cost]] = []
    for _ in range(runs):
        run(plain, "down", cwd=ROOT)
        script = cost(lambda: run(plain, "up", cwd=ROOT))
        run(plain, "down", cwd=ROOT)
        program = cost(lambda: run("pulumi", "up", *words, cwd=ours))
        run("pulumi", "destroy", *words[:-2], "-s", STACK, cwd=ours)
        pairs.append((script, program))
        print(f"plain {script.seconds:.1f} s, pulumi up {program.seconds:.1f} s", flush=True)
    compare(("plain script", "pulumi up"), pairs)


def main() -> None:
    """Measure one thing."""
    parser = argparse.ArgumentParser(prog="bench")
    parser.add_argument("what", choices=["preview", "simulated", "up"])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--machines", type=int, default=1)
    parser.add_argument("--light", action="store_true", help="no machine has a service")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        if options.what == "preview":
            preview(Path(name), options.runs, options.machines, not options.light)
        elif options.what == "simulated":
            simulated(Path(name), options.runs, options.machines)
        else:
            up(Path(name), options.runs)


if __name__ == "__main__":
    main()
