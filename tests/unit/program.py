"""The program, run against a monitor that makes nothing and remembers what it was asked for."""

from __future__ import annotations

import asyncio
import contextvars
import json
import runpy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import indent
from typing import Any

import components.drift
import components.live
import components.roles.open_webui
import components.roles.stt_server
import pulumi
import pytest
import yaml
from components.drift import Differences
from components.live import Live
from components.templates import render
from declaration.cards import Card
from google.protobuf import json_format, struct_pb2
from pulumi.runtime import settings as runtime
from pulumi.runtime import stack as pulumi_stack
from pulumi.runtime.mocks import MockMonitor
from pulumi.runtime.proto import resource_pb2

from tests.e2e.project import ROOT

#: What is made once and kept, on no machine.
KEYS = {"stt_server/key", "open_webui/session-key", "open_webui/admin-password"}
#: Every Whisper model fits on it, in every compute type.
CARD = Card("0000:01:00.0", "10de", "2684", "0", "RTX 4090", 24564, (8, 9), "560.35.03")
EMPTY_HOST = Live(cards=[CARD], projects={}, networks={}, pools=["default", "fast"])
API_KEY = "key-of-the-test-0123456789"


def plain(value: Any) -> Any:
    """A value of Pulumi's wire without the marks of secrets."""
    if isinstance(value, dict):
        if "4dabf18193072939515e22adb298388d" in value:
            return plain(value["value"])
        return {key: plain(each) for key, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, list) else value


def read_config(stack: str) -> dict[str, str]:
    """A stack's configuration, as the CLI gives it to the program."""
    project = yaml.safe_load(Path("Pulumi.yaml").read_text("utf-8"))
    text = Path(project["stackConfigDir"], f"Pulumi.{stack}.yaml").read_text("utf-8")
    typed = yaml.safe_load(text).get("config") or {}
    # The CLI hands scalars on as they are written: `no` is no boolean there, and 1e3 no number.
    written = yaml.load(text, yaml.BaseLoader).get("config") or {}
    values = {key: value["default"] for key, value in project["config"].items()}
    values |= {k: written[k] if isinstance(written[k], str) else typed[k] for k in typed}
    return {k: v if isinstance(v, str) else json.dumps(v) for k, v in values.items()}


async def run_program(monitor: MockMonitor, stack: str) -> None:
    """Run ``__main__.py`` against a monitor, as a language host does."""
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    pulumi.runtime.set_mocks(None, "stt", stack, monitor=monitor)  # type: ignore[arg-type]

    def program() -> None:
        runpy.run_path("__main__.py", run_name="__main__")
        top = runtime.get_root_resource()
        top.register_outputs(top.outputs)  # type: ignore[union-attr]  # set_mocks made it

    await pulumi_stack.run_pulumi_func(program)


@dataclass(frozen=True)
class Registered:
    """One resource as Pulumi's engine would see it."""

    urn: str
    type: str
    name: str
    parent: str
    inputs: dict[str, Any]
    request: Any

    @property
    def dependencies(self) -> list[str]:
        """The names of what it depends on."""
        return sorted(urn.split("::")[-1] for urn in self.request.dependencies)

    @property
    def secret_inputs(self) -> set[str]:
        return {key for key, value in self.inputs.items() if plain(value) != value}


class Recorder(MockMonitor):
    """Remembers registrations; every Command has the output that a test gives it."""

    preview = False

    def __init__(self, answers: Mapping[str, str]) -> None:
        super().__init__(None)  # type: ignore[arg-type]  # no mocks are asked
        self.answers = answers
        self.registered: dict[str, Registered] = {}
        self.outputs: dict[str, Any] = {}

    def RegisterResource(self, request: Any) -> Any:  # noqa: N802  # Pulumi's name
        urn = self.make_urn(request.parent, request.type, request.name)
        inputs = json_format.MessageToDict(request.object)
        self.registered[request.name] = Registered(
            urn, request.type, request.name, request.parent.split("::")[-1], inputs, request
        )
        answer = struct_pb2.Struct()
        said = [text for end, text in self.answers.items() if request.name.endswith(end)]
        answer.update({**inputs, "stdout": (said or [""])[0], "stderr": ""})
        identity = f"id of {request.name}" if request.custom else ""
        return resource_pb2.RegisterResourceResponse(urn=urn, id=identity, object=answer)

    def RegisterResourceOutputs(self, request: Any) -> Any:  # noqa: N802  # Pulumi's name
        if request.urn.split("::")[2] == "pulumi:pulumi:Stack":
            self.outputs = json_format.MessageToDict(request.outputs)
        return resource_pb2.RegisterResourceResponse()


@dataclass
class Program:
    """What a run of the program asked for."""

    registered: dict[str, Registered]
    outputs: dict[str, Any]

    @property
    def commands(self) -> dict[str, Registered]:
        return {n: r for n, r in self.registered.items() if r.type == "command:local:Command"}


def run(
    monkeypatch: pytest.MonkeyPatch,
    stack: str,
    live: Live = EMPTY_HOST,
    secret: bool = False,
    drifted: Differences | None = None,
    **settings: Any,
) -> Program:
    """Run the program with a shipped stack and some settings changed.

    Digests of files are always the same, so that what a test expects does not change with them.
    """
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(components.live, "read_live", lambda *_: live)
    monkeypatch.setattr(components.drift, "differences", lambda *_: drifted or {})
    monkeypatch.setattr(components.roles.stt_server, "_digest", lambda path: "d19e57d19e57")
    monkeypatch.setattr(components.roles.open_webui, "digest", lambda path: "d19e57d19e57")
    config = read_config(stack)
    config |= {f"stt:{k}": v if isinstance(v, str) else json.dumps(v) for k, v in settings.items()}
    checks = '{"text": "one two three", "seconds": 0.1, "real_time_factor": 0.08}'
    answers = {
        "/stt_server/verify": checks,
        "/open_webui/verify": checks,
        "stt_server/key": API_KEY,
        "open_webui/session-key": "session-key-of-the-test",
        "open_webui/admin-password": "password-of-the-test",
    }
    recorder = Recorder(answers)

    def in_context() -> None:
        pulumi.runtime.set_all_config(config, ["stt:apiKey", "stt:adminPassword"] if secret else [])
        asyncio.run(run_program(recorder, stack))

    contextvars.copy_context().run(in_context)
    return Program(recorder.registered, plain(recorder.outputs))


def golden(program: Program) -> str:
    """All Commands as text: what runs, what it gets, what it depends on."""
    entries: dict[str, Any] = {}
    for name in sorted(program.commands):
        command = program.commands[name]
        inputs = plain(command.inputs)
        entries[name] = {
            "parent": command.parent,
            "needs": command.dependencies,
            "secret": sorted(command.secret_inputs),
            "gone with": command.request.deletedWith.split("::")[-1],
            **{key: inputs[key] for key in sorted(inputs)},
        }
    text = yaml.dump(entries, Dumper=_Dumper, sort_keys=False, width=1000, allow_unicode=True)
    prelude = indent(render("prelude.sh"), "    ")
    return text.replace(prelude, "    # PRELUDE\n")


class _Dumper(yaml.SafeDumper):
    """YAML with texts of several lines as such."""


_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style="|" if "\n" in text else None
    ),
)


def golden_file(name: str) -> Path:
    """Where a golden text lies."""
    return Path(__file__).parent / "golden" / f"{name}.yaml"
