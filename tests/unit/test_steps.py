"""The steps of every engine in every topology: names, needs, places, and what they are made of."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml

from agent.actions import Action, Build, Unpack
from agent.actions import Run as RunAction
from agent.kinds import kinds
from agent.kinds.model import Model
from agent.kinds.packages import Packages
from agent.kinds.program import Program
from agent.kinds.run import Run
from agent.kinds.user import User
from agent.machine import Machine, StepError
from agent.specs import decode, encode
from components.deployment import contexts, declared_steps, steps_in_order
from declaration.source_files import ROOT
from declaration.step import Step
from engines import ENGINES
from roles import ROLES
from stack.declare import declare
from tests.documented import commands
from tests.unit.values import CPU, PEM, STACKS, own

ENGINES_TO_TRY = [name for name in ENGINES if name != "custom"]


def one_machine() -> dict[str, Any]:
    """A topology with every role on one machine."""
    roles = ["base_system", *(name for name in ROLES if name != "base_system")]
    machines = {"box": {"roles": roles}}
    return {"domains": {"lab": {"trust_level": "semi-trusted", "machines": machines}}}


def backwards() -> dict[str, Any]:
    """A topology with the roles in an order in which nobody would run them."""
    infra: dict[str, Any] = yaml.safe_load((STACKS / "infra.cpu.yml").read_text())
    for machine in infra["domains"]["ai-tools"]["machines"].values():
        machine["roles"].reverse()
    return infra


TOPOLOGIES = {
    "cpu": own("infra.cpu.yml"),
    "gpu": own("infra.yml"),
    "one machine": one_machine,
    "backwards": backwards,
}


@pytest.fixture(
    scope="module", params=[(t, e) for t in TOPOLOGIES for e in ENGINES_TO_TRY], ids=" ".join
)
def steps(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Step]:
    """All steps of a declaration with everything that a setting can add."""
    topology, engine = request.param
    infra = TOPOLOGIES[topology]
    if callable(infra):
        file = tmp_path_factory.mktemp("infra") / "infra.yml"
        file.write_text(yaml.safe_dump(infra()))
        infra = str(file)
    pem = tmp_path_factory.mktemp("ca") / "ca.pem"
    pem.write_text(PEM)
    values = {
        **CPU,
        "infra": infra,
        "engine": engine,
        "model": "",
        "quantization": "auto",
        "caBundle": str(pem),
        "keepModels": False,
        "ollama": {"models": ["a"]},
        "webui": {"tls": "internal"},
        # The STT service of the same machine has the usual port.
        "gateway": {"port": 8080},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        declaration = declare(values, ROLES, ROOT)
        kinds = declaration.engine.compute_types
        first = [kinds[service.device][0] for service in declaration.services]
        return declared_steps(declaration.with_compute_types(first))


def test_names_are_unique_and_every_need_exists(steps: list[Step]) -> None:
    counted = Counter(step.name for step in steps)
    assert set(counted.values()) == {1}
    for step in steps:
        assert step.name.count("/") == 3
        assert set(step.needs) | set(step.after) <= set(counted), step.name
        assert len(set(step.needs)) == len(step.needs), step.name


def test_uv_and_its_user_are_only_where_a_step_needs_them(tmp_path: Path) -> None:
    domain = {
        "trust_level": "semi-trusted",
        "machines": {
            "gpu-server": {"roles": ["base_system", "stt_server"]},
            "bare": {"roles": ["base_system"]},
        },
    }
    infra = tmp_path / "infra.yml"
    infra.write_text(yaml.safe_dump({"domains": {"lab": domain}}))
    names = {step.name for step in declared_steps(declare({"infra": str(infra)}, ROLES, ROOT))}
    found = {
        machine: {part for part in ("packages", "uv", "builder") if f"{machine}/{part}" in names}
        for machine in ("lab/gpu-server/base_system", "lab/bare/base_system")
    }
    assert list(found.values()) == [{"packages", "uv", "builder"}, {"packages"}]


def test_there_is_an_order(steps: list[Step]) -> None:
    ordered = [step.name for step in steps_in_order(steps)]
    assert sorted(ordered) == sorted(step.name for step in steps)
    for step in steps:
        for need in (*step.needs, *step.after):
            assert ordered.index(need) < ordered.index(step.name)


def test_a_spec_survives_its_way_to_the_agent(steps: list[Step]) -> None:
    for step in steps:
        data = json.loads(step.text())
        assert decode(kinds()[data["kind"]], data["spec"]) == decode(
            kinds()[step.spec.kind], encode(step.spec)
        )
        assert encode(decode(kinds()[data["kind"]], data["spec"])) == data["spec"]


def test_no_two_steps_of_a_machine_make_the_same_thing(steps: list[Step]) -> None:
    """One that goes would take away what the other has made."""
    made = Counter(
        (step.machine, lock)
        for step in steps
        for lock in step.spec.locks
        if step.spec.kind not in ("packages", "model", "user")
    )
    assert [each for each, count in made.items() if count > 1] == []


def test_every_user_of_a_machine_has_a_uid_of_its_own(steps: list[Step]) -> None:
    """Else one service may read what is another's."""
    users = {
        (step.machine, step.spec.name, step.spec.uid)
        for step in steps
        if isinstance(step.spec, User)
    }
    assert users
    assert len({(machine, uid) for machine, _, uid in users}) == len(users)


def test_roles_have_no_output_in_common(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two outputs of one name, one would be lost."""
    monkeypatch.chdir(ROOT)
    found = Counter(
        name
        for role, context in contexts(declare(CPU, ROLES, ROOT))
        for name in ROLES[role].outputs(context)
    )
    assert found and set(found.values()) == {1}


def test_what_brings_a_file_has_a_source_and_nothing_else_has(steps: list[Step]) -> None:
    for step in steps:
        assert bool(step.source) == step.spec.payload == (step.spec.kind == "upload"), step.name


#: Programs that every machine has: of Debian's base system, and the agent's Python.
ALWAYS = {
    *("chmod", "install", "journalctl", "mkdir", "python3", "rm", "sh", "systemctl", "tar"),
    *("setpriv", "unshare"),
}


class Recording(Machine):
    """A machine in which every program succeeds, says nothing, and is noted."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.called: list[str] = []

    def run(self, argv: Sequence[str], **_: Any) -> subprocess.CompletedProcess[str]:
        self.called.append(argv[0])
        return subprocess.CompletedProcess(argv, 0, "", "")


def called(step: Step, root: Path) -> set[str]:
    """The programs that a step finds on the machine's PATH."""
    actions: list[Action] = []
    machine = Recording(root)
    match step.spec:
        case Program():
            actions += step.spec.actions
        case Model():
            actions += [*step.spec.fetch, step.spec.check_load]
        case Run():
            machine.called += [
                words[0] for words in (step.spec.argv, step.spec.check_argv) if words
            ]
    for action in actions:
        if isinstance(action, Build):  # this machine has not its user
            machine.called += ["setpriv", "unshare", *(run.argv[0] for run in action.runs)]
            continue
        with suppress(StepError, OSError):  # nothing was fetched
            action.do(machine)
    zipped = [each for each in actions if isinstance(each, Unpack) and ".zst" in each.archive]
    return {name for name in machine.called if "/" not in name} | ({"zstd"} if zipped else set())


def packages(steps: Iterable[Step]) -> set[str]:
    """What they install."""
    return {name for step in steps if isinstance(step.spec, Packages) for name in step.spec.names}


def before(step: Step, known: dict[str, Step]) -> Iterator[Step]:
    """What comes before a step."""
    for name in step.needs:
        yield known[name]
        yield from before(known[name], known)


def test_what_a_step_calls_is_installed_before(steps: list[Step], tmp_path: Path) -> None:
    known = {step.name: step for step in steps}
    found = {step.name: called(step, tmp_path) for step in steps}
    for step in steps:
        installed = packages(before(step, known))
        assert found[step.name] - ALWAYS <= installed, step.name
    assert set.union(*found.values()) >= {"curl", "zstd", "tar"}


def test_speaches_brings_what_fetches_it_and_what_the_documented_commands_call(
    tmp_path: Path,
) -> None:
    values = {**CPU, "engine": "speaches", "model": "", "quantization": "auto"}
    steps = [
        step
        for step in declared_steps(declare(values, ROLES, ROOT))
        if step.name.startswith("ai-tools/gpu-server/stt_server/")
    ]
    assert "git" in set.union(*(called(step, tmp_path) for step in steps))
    lines = [shlex.split(line) for line in commands() if " exec gpu-server " in line]
    documented = {line[line.index("--") + 1] for line in lines}
    assert "ffmpeg" in documented
    # nvidia-smi is the host's own (nvidia.runtime).
    assert documented - ALWAYS - {"nvidia-smi"} <= packages(steps)


def runs(steps: list[Step]) -> list[tuple[bool, list[str]]]:
    """What programs, models and steps run: whether as root, and the words."""
    found: list[tuple[bool, list[str]]] = []
    for spec in (step.spec for step in steps):
        actions: list[Any] = []
        match spec:
            case Program():
                actions += spec.actions
            case Model():
                actions += [*spec.fetch, spec.check_load]
            case Run():
                found.append((not spec.user, list(spec.argv)))
        for action in actions:
            for run in action.runs if isinstance(action, Build) else [action]:
                if isinstance(run, RunAction):
                    as_root = not (run.user or isinstance(action, Build))
                    found.append((as_root, list(run.argv)))
    return [(as_root, words) for as_root, words in found if words]


def test_no_package_is_installed_without_a_hash(steps: list[Step]) -> None:
    """uv.lock has those of packages, and none of what builds them."""
    every = [set(words) for _, words in runs(steps)]
    installing = [words for words in every if "pip" in words]
    syncing = [words for words in every if "sync" in words]
    assert all("--require-hashes" in words for words in installing)
    assert all({"--frozen", "--no-build-isolation"} <= words for words in syncing)
    locked = [words for words in every if "--locked" in words]  # cargo
    assert installing or syncing or locked


def test_nothing_that_packages_bring_runs_as_root(steps: list[Step]) -> None:
    """As root: the distribution's programs, and a Python that knows no package yet."""
    every = runs(steps)
    for words in (words for as_root, words in every if as_root and words[0].startswith("/")):
        uv = PurePosixPath(words[0]).name == "uv" and words[1] == "venv"
        assert uv or words[1:3] == ["-I", "-S"], words
    assert any("pip" in words for as_root, words in every if not as_root)
