"""Pulumi's provider `command`, in small: local.Command and local.run of pulumi-command 1.2.1."""

from __future__ import annotations

import gc

gc.disable()  # while modules are imported it finds nothing, and a preview waits for them
# ruff: noqa: E402  # for this

import os
import signal
import sys
from functools import partial
from typing import Any, NoReturn

import grpc
from google.protobuf import empty_pb2, json_format, struct_pb2

import rpc
from execute import STREAMS, CommandError, Runner
from properties import UNKNOWN, differences, holds_secret, plain, secret

with rpc.without_sdk():
    from pulumi.runtime.proto import (
        engine_pb2,
        engine_pb2_grpc,
        plugin_pb2,
        provider_pb2,
        provider_pb2_grpc,
    )

VERSION = "1.2.1"
COMMAND, RUN = "command:local:Command", "command:local:run"
OFFICIAL = f"Install Pulumi's own: pulumi plugin install resource command {VERSION}"


def read(struct: struct_pb2.Struct) -> dict[str, Any]:
    """Properties as they come; those that are null are not there."""
    found: dict[str, Any] = json_format.MessageToDict(struct)
    return {name: value for name, value in found.items() if value is not None}


def written(properties: dict[str, Any]) -> struct_pb2.Struct:
    """Properties as they go out."""
    return json_format.ParseDict(properties, struct_pb2.Struct())


class Provider(provider_pb2_grpc.ResourceProviderServicer):
    """What the engine asks for; each request comes in a thread of its own."""

    def __init__(self) -> None:
        self.runner = Runner()
        # Meant for the commands (see `Runner.cancel`); they do not inherit this.
        signal.signal(signal.SIGTERM, lambda *_: None)
        self.engine = engine_pb2_grpc.EngineStub(grpc.insecure_channel(sys.argv[-1]))

    def Handshake(self, request: Any, context: Any) -> Any:
        return provider_pb2.ProviderHandshakeResponse(accept_secrets=True)

    def GetPluginInfo(self, request: Any, context: Any) -> Any:
        return plugin_pb2.PluginInfo(version=VERSION)

    def CheckConfig(self, request: Any, context: Any) -> Any:
        return provider_pb2.CheckResponse(inputs=request.news)

    def DiffConfig(self, request: Any, context: Any) -> Any:
        return provider_pb2.DiffResponse(changes=provider_pb2.DiffResponse.DIFF_NONE)

    def Configure(self, request: Any, context: Any) -> Any:
        return provider_pb2.ConfigureResponse(acceptSecrets=True, supportsPreview=True)

    def Check(self, request: Any, context: Any) -> Any:
        failures = []
        if request.urn.split("::")[2].split("$")[-1] != COMMAND:
            failures = [("", f"This small plugin only has {COMMAND}. {OFFICIAL}")]
        for name in {"assetPaths", "archivePaths"} & set(request.news.fields):
            failures.append((name, f"This small plugin does not collect files. {OFFICIAL}"))
        return provider_pb2.CheckResponse(
            inputs=request.news,
            failures=[provider_pb2.CheckFailure(property=p, reason=r) for p, r in failures],
        )

    def Diff(self, request: Any, context: Any) -> Any:
        found: dict[str, str] = {}
        if request.old_inputs != request.news:  # most are the same, and to read them takes longer
            found = dict(differences(read(request.old_inputs), read(request.news)))
        names = sorted({path.replace("[", ".").split(".")[0] for path in found})
        kinds = provider_pb2.PropertyDiff.Kind
        replace = {path: "_REPLACE" if path.startswith("triggers") else "" for path in found}
        changes = provider_pb2.DiffResponse
        return provider_pb2.DiffResponse(
            changes=changes.DIFF_SOME if found else changes.DIFF_NONE,
            diffs=names,
            replaces=[name for name in names if name == "triggers"],
            hasDetailedDiff=True,
            detailedDiff={
                path: provider_pb2.PropertyDiff(kind=kinds.Value(kind + replace[path]))
                for path, kind in found.items()
            },
        )

    def Create(self, request: Any, context: Any) -> Any:
        inputs = read(request.properties)
        state = self.state(request, inputs, {}, inputs.get("create"), context)
        identity = "" if request.preview else request.name + os.urandom(4).hex()
        return provider_pb2.CreateResponse(id=identity, properties=state)

    def Update(self, request: Any, context: Any) -> Any:
        inputs = read(request.news)
        command = inputs.get("update", inputs.get("create"))
        state = self.state(request, inputs, read(request.olds), command, context)
        return provider_pb2.UpdateResponse(properties=state)

    def Delete(self, request: Any, context: Any) -> Any:
        old = read(request.properties)
        if command := old.get("delete"):
            self.run(command, old, old, request.urn, context, request.timeout)
        return empty_pb2.Empty()

    def Read(self, request: Any, context: Any) -> Any:
        return provider_pb2.ReadResponse(
            id=request.id, properties=request.properties, inputs=request.inputs
        )

    def Invoke(self, request: Any, context: Any) -> Any:
        inputs = read(request.args)
        if request.tok != RUN:
            self.refuse(context, f"This small plugin only has {RUN}, not {request.tok}. {OFFICIAL}")
        output = self.run(inputs["command"], inputs, {}, "", context)
        answer: dict[str, Any] = {"return": written({**inputs, **output})}  # a word of Python's
        return provider_pb2.InvokeResponse(**answer)

    def Cancel(self, request: Any, context: Any) -> Any:
        self.runner.cancel()
        return empty_pb2.Empty()

    def state(
        self, request: Any, inputs: dict[str, Any], old: dict[str, Any], command: Any, context: Any
    ) -> struct_pb2.Struct:
        """A Command's new state, once its command has run; in a preview its output is unknown."""
        output = {name: old.get(name, "") for name in STREAMS}
        if request.preview:
            output = dict.fromkeys(STREAMS, UNKNOWN)
        elif command:
            output = self.run(command, inputs, old, request.urn, context, request.timeout)
        if holds_secret(inputs):
            output = {name: secret(plain(text)) for name, text in output.items()}
        return written({**inputs, **output})

    def run(
        self,
        command: Any,
        inputs: dict[str, Any],
        old: dict[str, Any],
        urn: str,
        context: Any,
        seconds: float = 0,
    ) -> dict[str, Any]:
        """Run a command; its output. A failure is the engine's to tell."""
        log = partial(self.log, urn)
        try:
            return dict(self.runner.run(plain(command), plain(inputs), plain(old), log, seconds))
        except CommandError as error:
            self.refuse(context, str(error))

    def refuse(self, context: Any, why: str) -> NoReturn:
        """End a request with an error."""
        context.abort(grpc.StatusCode.UNKNOWN, why)
        raise AssertionError  # abort raises

    def log(self, urn: str, line: str) -> None:
        """Show a line of a command's output, as progress."""
        info = engine_pb2.LogSeverity.INFO
        self.engine.Log(engine_pb2.LogRequest(severity=info, message=line, urn=urn, ephemeral=True))


if __name__ == "__main__":
    add = provider_pb2_grpc.add_ResourceProviderServicer_to_server
    provider = Provider()
    rpc.serve(provider, add, provider.runner.wait).wait_for_termination()
