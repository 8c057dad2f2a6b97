"""Throw-away projects on Pulumi's own engine, with this project's plugins and with Pulumi's own.

``STT_TEST_OFFICIAL_PLUGINS`` names a directory with the executables pulumi-language-python,
pulumi-language-python-exec and pulumi-resource-command: the same cases then run on both.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(__file__).with_name("program.py")
OFFICIAL = os.environ.get("STT_TEST_OFFICIAL_PLUGINS", "")
PLUGINS = {"ours": str(ROOT / "plugins"), **({"official": OFFICIAL} if OFFICIAL else {})}
PROJECT = f"""name: cases
runtime: {{name: python, options: {{toolchain: pip, virtualenv: {ROOT / ".venv"}}}}}
stackConfigDir: stacks
backend: {{url: "file://./state"}}
config:
  cases:default: {{type: string, default: as declared}}
"""
DEADLINE = 120


@dataclass
class Case:
    """A project with a stack `s`; its program registers the Commands that a test plans."""

    root: Path
    cli: Path
    plugins: str
    passphrase: str = "x"
    said: str = ""

    @property
    def environment(self) -> dict[str, str]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("PULUMI_")}
        return {
            **inherited,
            # Neither an operator's plugins nor a look at Pulumi's site.
            "PATH": f"{PLUGINS[self.plugins]}:{self.cli.parent}:/usr/local/bin:/usr/bin:/bin",
            "PULUMI_HOME": str(self.root / "home"),
            "PULUMI_CONFIG_PASSPHRASE": self.passphrase,
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
            "PULUMI_STACK": "s",
            "PULUMI_SKIP_UPDATE_CHECK": "true",
        }

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Plain `pulumi`, in a process group of its own as a shell starts it."""
        return subprocess.Popen(
            ["pulumi", *words], cwd=self.root, env=self.environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip

    def pulumi(self, *words: str, fails: bool = False, stdin: str = "") -> str:
        """Plain `pulumi`, to its end; what it printed."""
        done = subprocess.run(
            ["pulumi", *words], cwd=self.root, env=self.environment, input=stdin, text=True,
            capture_output=True, timeout=DEADLINE, check=False,
        )  # fmt: skip
        self.said = done.stdout + done.stderr
        assert (done.returncode != 0) == fails, self.said
        return done.stdout

    def plan(self, *entries: dict[str, Any]) -> None:
        (self.root / "plan.json").write_text(json.dumps(entries))

    def run(self, verb: str, *words: str, fails: bool = False) -> list[str]:
        """Run a verb without questions; what the Commands noted."""
        log = self.root / "log"
        log.write_text("")
        yes = ["--yes", "--skip-preview"] if verb in ("up", "destroy", "refresh") else []
        self.pulumi(verb, *yes, *words, fails=fails)
        return log.read_text().splitlines()

    def up(
        self, *entries: dict[str, Any], words: Sequence[str] = (), fails: bool = False
    ) -> list[str]:
        self.plan(*entries)
        return self.run("up", *words, fails=fails)

    def outputs(self, *words: str) -> Any:
        return json.loads(self.pulumi("stack", "output", "--json", *words))

    def resources(self) -> dict[str, Any]:
        """The Commands in the state, by name."""
        found = json.loads(self.pulumi("stack", "export"))["deployment"].get("resources", [])
        named = {each["urn"].rpartition("::")[2]: each for each in found}
        return {n: each for n, each in named.items() if each["type"] == "command:local:Command"}


@pytest.fixture(scope="session")
def cli() -> Path:
    """Pulumi's CLI, fetched or built where there is none."""
    script = f'set -e; eval "$({ROOT}/bootstrap/cli.sh)"; command -v pulumi'
    done = subprocess.run(
        ["sh", "-c", script], capture_output=True, text=True, timeout=1500, check=False
    )
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip()).resolve()


@pytest.fixture(scope="session", params=list(PLUGINS))
def empty(
    request: pytest.FixtureRequest, cli: Path, tmp_path_factory: pytest.TempPathFactory
) -> Case:
    """A project with a stack in which nothing is yet."""
    root = tmp_path_factory.mktemp(request.param)
    for name in ("stacks", "state"):
        (root / name).mkdir()
    (root / "Pulumi.yaml").write_text(PROJECT)
    shutil.copy(PROGRAM, root / "__main__.py")
    case = Case(root, cli, request.param)
    case.pulumi("stack", "init", "s")
    return case


@pytest.fixture
def case(empty: Case, tmp_path: Path) -> Case:
    """A copy of it: making a stack takes a second."""
    root = tmp_path / "project"
    shutil.copytree(empty.root, root)
    return Case(root, empty.cli, empty.plugins)
