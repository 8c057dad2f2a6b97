"""The program, run against a monitor that makes nothing and remembers what it was asked for."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import json
import logging
import runpy
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import pulumi
import pytest
import yaml
from google.protobuf import json_format, struct_pb2
from pulumi.runtime import resource as pulumi_resource
from pulumi.runtime import settings as pulumi_settings
from pulumi.runtime import stack as pulumi_stack
from pulumi.runtime.mocks import MockMonitor
from pulumi.runtime.proto import resource_pb2, source_pb2

import components.agent
import components.start
import components.unread
from agent.difference import Difference
from components.deployment import declared_steps
from components.state import STACK_ID
from components.step import noted_digest
from declaration import source_files
from declaration.source_files import ROOT
from declaration.step import Step
from gpu.cards import Card
from host.client import HostError
from host.dns_rule import rules
from host.firewall import RULE, Firewall
from host.objects import OWNER, UUID
from host.read import AppliedStep, Live, MachineState
from roles.stt_server.access import CLIENT_KEY
from stack.declare import Declaration
from tests.unit.values import CARD, DEFAULTS, STACKS

#: Pulumi's marks of a secret on the wire.
MARK, SECRET = "4dabf18193072939515e22adb298388d", "1b47061264138c4ac30d75fd1eb44270"
_DIGESTS = {name: getattr(source_files, name) for name in ("digest", "own_digest")}
DIGEST = "d19e57d19e57"
#: What is made once and kept, on no machine, with the value that it gets here.
KEPT = {
    STACK_ID: "11111111-2222-3333-4444-555555555555",
    "stt_server/key": "key-of-the-test-0123456789",
    "open_webui/session-key": "session-key-of-the-test",
    "open_webui/admin-password": "password-of-the-test",
}
API_KEY = KEPT["stt_server/key"]
#: Every machine's.
SALT = "salt of the test"
#: What the last step of each role says.
CHECK = {"text": "one two three", "seconds": 0.1, "real_time_factor": 0.08}


def plain(value: Any) -> Any:
    """A value of Pulumi's wire with its secrets in the clear."""
    if isinstance(value, dict):
        if value.get(MARK) == SECRET:
            return plain(value["value"])
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


def host_with(*cards: Card, **more: Any) -> Live:
    """A host with cards, storage pools, and nothing else."""
    found = [
        {
            "pci_address": card.pci,
            "vendor_id": card.vendor_id,
            "product_id": card.product_id,
            "product": card.name,
            "drm": {"id": int(card.drm or 0)},
        }
        for card in cards
    ]
    lines = [
        f"{card.pci}, {card.name}, {card.memory or '[N/A]'}, "
        f"{'.'.join(map(str, card.capability)) if card.capability else '[N/A]'}, {card.driver}"
        for card in cards
        if card.nvidia
    ]
    empty = {"projects": {}, "networks": {}, "firewall": Firewall()}
    values = {**empty, "pools": {"default": "dir", "fast": "zfs"}, **more}
    return Live({"gpu": {"cards": found}}, "\n".join(lines), **values)


EMPTY_HOST = host_with(CARD)


@dataclass(frozen=True)
class Registered:
    """One resource as Pulumi's engine sees it.

    ``done`` is what the engine does to it: create, update, replace, or "" for nothing.
    """

    urn: str
    type: str
    name: str
    parent: str
    inputs: dict[str, Any]
    request: Any
    id: str = ""
    stdout: str = ""
    runs: int = 0
    done: str = ""
    former: str = ""

    @property
    def dependencies(self) -> list[str]:
        """The names of what it depends on."""
        return sorted(urn.split("::")[-1] for urn in self.request.dependencies)

    @property
    def secret_inputs(self) -> set[str]:
        """The inputs that are encrypted in the state."""
        return {key for key, value in self.inputs.items() if plain(value) != value}

    @property
    def drift(self) -> list[str]:
        """The lines of its DRIFT, without the time."""
        text = (plain(self.inputs).get("environment") or {}).get("DRIFT", "")
        return [line for line in text.splitlines() if not line.startswith("@")]

    @property
    def stdin(self) -> str:
        """What the command gets on stdin."""
        return str(plain(self.inputs.get("stdin", "")))

    @property
    def data(self) -> Any:
        """The desired state."""
        return json.loads(self.stdin)

    @property
    def spec(self) -> Any:
        """The spec of a step."""
        return self.data["spec"]

    @property
    def step_kind(self) -> str:
        """The kind of a step; empty for anything else."""
        return str(self.data.get("kind", "")) if self.name.count("/") == 3 else ""


class Recorder(MockMonitor):
    """Remembers registrations, and says of each what Pulumi's engine would do.

    ``before`` is what an earlier run has left: the state.
    """

    def __init__(self, before: Mapping[str, Registered]) -> None:
        super().__init__(None)  # type: ignore[arg-type]  # no mocks are asked
        self.before = before
        self.registered: dict[str, Registered] = {}
        self.outputs: dict[str, Any] = {}

    def RegisterResource(self, request: Any) -> Any:  # noqa: N802  # Pulumi's name
        name = request.name
        urn = self.make_urn(request.parent, request.type, name)
        assert name not in self.registered, f"two resources are called {name}"
        inputs = json_format.MessageToDict(request.object)
        made = Registered(urn, request.type, name, request.parent.split("::")[-1], inputs, request)
        if request.custom:
            made = self._engine(made)
        self.registered[name] = made
        answer = struct_pb2.Struct()
        answer.update({**made.inputs, "stdout": made.stdout, "stderr": ""})
        return resource_pb2.RegisterResourceResponse(urn=urn, id=made.id, object=answer)

    def _engine(self, made: Registered) -> Registered:
        names = [made.name, *(alias.spec.name for alias in made.request.aliases)]
        old = next((self.before[name] for name in names if name in self.before), None)
        if old is None:
            stdout = _said(made, 1)
            return replace(made, id=f"id of {made.name}", stdout=stdout, runs=1, done="create")
        wanted = dict(made.inputs)
        for key in made.request.ignoreChanges:
            wanted.pop(key, None)
            if key in old.inputs:
                wanted[key] = old.inputs[key]
        if wanted["triggers"] != old.inputs["triggers"]:
            done, identity = "replace", f"{old.id}, again"
        else:
            done, identity = "update" if wanted != old.inputs else "", old.id
        runs = old.runs + (1 if done else 0)
        return replace(
            made,
            inputs=wanted,
            id=identity,
            stdout=_said(made, runs),
            runs=runs,
            done=done,
            former=old.name,
        )

    def RegisterResourceOutputs(self, request: Any) -> Any:  # noqa: N802  # Pulumi's name
        if request.urn.split("::")[2] == "pulumi:pulumi:Stack":
            # The SDK registers none as well, at first, and either may come last.
            self.outputs |= json_format.MessageToDict(request.outputs)
        return resource_pb2.RegisterResourceResponse()

    def Invoke(self, request: Any) -> Any:  # noqa: N802  # Pulumi's name
        assert request.tok == "pulumi:pulumi:readStackResourceOutputs"
        answer = struct_pb2.Struct()
        outputs: dict[str, Any] = {
            each.urn: {
                "type": each.type,
                "outputs": {**each.inputs, "stdout": each.stdout} if each.id else {},
            }
            for each in self.before.values()
        }
        answer.update({"name": "the stack", "outputs": outputs})
        said = resource_pb2.ResourceInvokeResponse()
        getattr(said, "return").CopyFrom(answer)
        return said


def _said(made: Registered, run: int) -> str:
    """What a command prints; every run of a step says something else."""
    if made.name.startswith(CLIENT_KEY):
        return f"key-of-{made.name.removeprefix(CLIENT_KEY)}" + ("" if run == 1 else f"-{run}")
    if made.name in KEPT:
        return KEPT[made.name] + ("" if run == 1 else f"-{run}")
    part = made.name.rpartition("/")[2]
    if part == "verify":
        return json.dumps({**CHECK, "seconds": run / 10})
    said: dict[str, Any] = {"invocation": str(run)}
    if part == "instance":
        said = {"uuid": f"uuid of {made.name}"}
    elif part == "firewall":
        said = {"set": {RULE: rules(json.loads(plain(made.inputs)["stdin"]))}}
    elif part in ("authority", "certificate"):
        said["certificate"] = "the certificate of the test"
    elif part in ("model", "service"):
        said["took"] = {"check" if part == "model" else "restart": 0.5}
    return json.dumps(said)


@dataclass
class Program:
    """What a run of the program asked for, and what it said."""

    registered: dict[str, Registered]
    outputs: dict[str, Any] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)

    @property
    def commands(self) -> dict[str, Registered]:
        """Every Command."""
        return {n: r for n, r in self.registered.items() if r.type == "command:local:Command"}

    @property
    def steps(self) -> dict[str, Registered]:
        """The steps of the machines."""
        return {name: each for name, each in self.commands.items() if each.step_kind}

    def acts(self, before: Program) -> bool:
        """Whether this run does something after ``before``, or protects something."""
        protected = any(each.request.protect for each in self.registered.values())
        return bool(self.changes(before)) or protected

    def calls_idle(self, setting: str) -> bool:
        """Whether the operator is told that a setting has no effect."""
        return any(line.startswith(f"{setting}: has no effect: ") for line in self.log)

    @property
    def drift(self) -> dict[str, list[str]]:
        """The drift by resource, where there is any."""
        return {name: each.drift for name, each in self.commands.items() if each.drift}

    @property
    def done(self) -> dict[str, str]:
        """What the engine does to what it knows, by the name in the state."""
        return {each.former or name: each.done for name, each in self.commands.items() if each.done}

    def changes(self, before: Program) -> dict[str, str]:
        """What this run does to each resource of an earlier one, deletions included."""
        kept = {each.former for each in self.commands.values()}
        return self.done | {name: "delete" for name in before.commands if name not in kept}


@dataclass
class _Reading:
    """A read of the host that has ended."""

    found: Live | HostError

    def result(self) -> Live:
        if isinstance(self.found, HostError):
            raise self.found
        return self.found


class _Log(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self.lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@cache
def config_of(stack: str) -> dict[str, str]:
    """The configuration of a stack as Pulumi gives it to the program: texts."""
    text = (STACKS / f"Pulumi.{stack}.yaml").read_text()
    typed, written = yaml.safe_load(text)["config"], yaml.load(text, yaml.BaseLoader)["config"]
    values = {f"stt:{key}": value for key, value in DEFAULTS.items()}
    # Scalars are handed on as they are written.
    values |= {key: written[key] if isinstance(written[key], str) else typed[key] for key in typed}
    return {key: v if isinstance(v, str) else json.dumps(v) for key, v in values.items()}


@cache
def _users_of_digests(_: int) -> list[tuple[Any, str]]:
    """The modules that have a function of digests, and its name there; of so many modules."""
    return [
        (module, name)
        for module in list(sys.modules.values())
        for name, original in _DIGESTS.items()
        if getattr(module, name, None) is original
    ]


@contextmanager
def constant_digests() -> Iterator[None]:
    """Digests of files that are always the same: expectations do not change with the files."""
    with pytest.MonkeyPatch.context() as patch:
        for module, name in _users_of_digests(len(sys.modules)):
            patch.setattr(module, name, lambda _: DIGEST)
        patch.setattr(components.agent, "agent_file", lambda: Path(f"agent-{DIGEST}.pyz"))
        yield


def run(
    stack: str,
    live: Live | HostError = EMPTY_HOST,
    before: Program | None = None,
    *,
    secret: bool = False,
    preview: bool = False,
    late: Mapping[tuple[str, str], MachineState] | None = None,
    **settings: Any,
) -> Program:
    """Run the program with a stack and some settings changed, on a host as ``live``.

    Of a group the keys that are given are changed.

    ``before`` is an earlier run, whose resources are in the state. With ``secret`` the secrets
    among the settings are encrypted. An error for ``live`` is what the read of the host ends in.
    ``late`` is what agents say while it runs that did not answer before.
    """
    config = dict(config_of(stack))
    for key, value in settings.items():
        if isinstance(value, dict):  # the other keys of the group stay
            value = {**json.loads(config.get(f"stt:{key}", "{}")), **value}
        config[f"stt:{key}"] = value if isinstance(value, str) else json.dumps(value)
    recorder = Recorder(before.registered if before else {})
    program = Program(recorder.registered)
    logger = logging.Logger("the program", logging.INFO)
    logger.addHandler(_Log(program.log))

    async def body() -> None:
        # What fails is raised below; asyncio would print it as well.
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        pulumi.runtime.set_mocks(
            None,  # type: ignore[arg-type]  # the recorder answers everything
            "stt",
            stack,
            preview,
            logger,
            recorder,
        )

        def main() -> None:
            runpy.run_path(str(ROOT / "__main__.py"), run_name="__main__")
            top = pulumi_settings.get_root_resource()
            assert isinstance(top, pulumi_stack.Stack)
            top.register_outputs(top.outputs)

        await pulumi_stack.run_pulumi_func(main)

    def in_context() -> None:
        encrypted = ["stt:apiKey", "stt:adminPassword", "stt:webui"] if secret else []
        pulumi.runtime.set_all_config(config, encrypted)
        asyncio.run(body())

    with pytest.MonkeyPatch.context() as patch, constant_digests():
        patch.chdir(ROOT)
        patch.setattr(components.start, "Reading", lambda *_: _Reading(live))
        patch.setattr(components.unread, "read_machine", lambda _, *place: (late or {}).get(place))
        # Nobody looks at where a resource comes from.
        patch.setattr(pulumi_resource, "_get_stack_trace", source_pb2.StackTrace)
        patch.setattr(gc, "freeze", lambda: None)  # it would keep this run for ever
        patch.setattr(gc, "enable", lambda: None)  # without it, there is all to look through
        contextvars.copy_context().run(in_context)
    gc.enable()
    gc.collect(1)
    program.outputs = plain(recorder.outputs)
    return program


@cache
def first_run(stack: str) -> Program:
    """A stack's first `up`, on a host with nothing. Change nothing in it."""
    return run(stack)


def steps_of(declaration: Declaration) -> dict[str, Step]:
    """The steps of a declaration by name, without Pulumi."""
    with constant_digests(), pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return {step.name: step for step in declared_steps(declaration)}


def words_of(command: Registered) -> list[str]:
    """The words of an Incus object's command after ``apply``: type, name, options."""
    if command.step_kind:
        return []
    words = shlex.split(plain(command.inputs)["create"])
    return words[words.index("apply") + 1 :] if "apply" in words else []


def place_of(command: Registered) -> tuple[str, str, str] | None:
    """Where the host has an Incus object: type, project and name; None for other commands."""
    if not (words := words_of(command)):
        return None
    kind, name, *options = words
    project = options[options.index("--project") + 1] if "--project" in options else name
    return kind, project, name


def host_after(program: Program, live: Live = EMPTY_HOST) -> Live:
    """The host once everything that a program asked for is done."""
    objects: dict[tuple[str, str, str], Mapping[str, Any]] = {}
    machines: dict[tuple[str, str], MachineState] = {}
    for name, command in program.commands.items():
        if place := place_of(command):
            owner = plain(command.inputs)["create"].partition(" --owner ")[2]
            found = {**command.data, "config": {**command.data["config"], OWNER: owner}}
            if place[0] == "instance":
                found["config"][UUID] = f"uuid of {name}"
                found |= {"status": "Running", "expanded_config": found["config"]}
            objects[place] = found
        elif name.endswith("/agent"):
            domain, machine, _ = name.split("/")
            machines.setdefault((domain, machine), MachineState({}, salt=SALT))
    for name, command in program.steps.items():
        domain, machine, part = name.split("/", 2)
        applied = AppliedStep(
            program.commands[STACK_ID].stdout, noted_digest(command.stdin, SALT), []
        )
        old = machines[domain, machine]
        machines[domain, machine] = replace(old, steps={**old.steps, part: applied})

    tables = {
        command.data["bridge"]: rules(command.data)
        for name, command in program.commands.items()
        if is_firewall(name)
    }

    def configs(kind: str) -> dict[str, Mapping[str, str]]:
        return {key[2]: item["config"] for key, item in objects.items() if key[0] == kind}

    return replace(
        live,
        projects=configs("project"),
        networks=configs("network"),
        objects=objects,
        machines=machines,
        firewall=Firewall(tables=tables),
    )


def is_firewall(name: str) -> bool:
    """Whether a command sets a bridge's rule of the host's firewall."""
    return name.endswith("/firewall")


def with_differences(live: Live, step: str, *differences: Difference, stack: str = "") -> Live:
    """The host with a step that its machine says is not as it was applied."""
    domain, machine, part = step.split("/", 2)
    state = live.machines[domain, machine]
    applied = replace(state.steps[part], differences=differences)
    if stack:
        applied = replace(applied, stack=stack)
    changed = replace(state, steps={**state.steps, part: applied})
    return replace(live, machines={**live.machines, (domain, machine): changed})


def without(live: Live, name: str, command: Registered) -> Live:
    """The host without what a command made: its object, its record, its agent."""
    if place := place_of(command):
        kept = {key: item for key, item in live.objects.items() if key != place}
        return replace(live, objects=kept)
    if is_firewall(name):
        tables = {**live.firewall.tables} if live.firewall else {}
        del tables[command.data["bridge"]]
        return replace(live, firewall=Firewall(tables=tables))
    domain, machine, part = name.split("/", 2)
    state = live.machines[domain, machine]
    machines = dict(live.machines)
    if command.step_kind:
        steps = {key: item for key, item in state.steps.items() if key != part}
        machines[domain, machine] = replace(state, steps=steps)
    else:
        del machines[domain, machine]
    return replace(live, machines=machines)


def plan_text(program: Program) -> str:
    """What a person would read in a review: each resource with its needs, and the variables."""
    lines: list[str] = []
    for name in sorted(program.commands):
        command = program.commands[name]
        machine = name.rpartition("/")[0] if not command.step_kind else _machine(name)
        needs = [n.removeprefix(f"{machine}/") for n in command.dependencies if n != STACK_ID]
        if command.step_kind:
            needs = [need for need in needs if need != "agent"]
        kind = command.step_kind or (words_of(command) or [name.rpartition("/")[2]])[0]
        secret = " (secret)" if command.secret_inputs else ""
        lines.append(f"{name}: {kind}{secret}" + (f" <- {', '.join(needs)}" if needs else ""))
        if kind == "service":
            lines += [f"    {key}={value}" for key, value in command.spec["variables"].items()]
    return "".join(f"{line}\n" for line in lines)


def _machine(name: str) -> str:
    return "/".join(name.split("/")[:2])
