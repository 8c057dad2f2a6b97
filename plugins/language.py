"""Pulumi's Python language host, in small: runs a program in this process, in the project's venv.

The engine starts a process for every operation, so a program always finds a fresh interpreter.
"""

from __future__ import annotations

import gc

gc.disable()  # while modules are imported it finds nothing, and a preview waits for them
# ruff: noqa: E402  # for this

import asyncio
import logging
import os
import runpy
import sys
import traceback
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from google.protobuf import empty_pb2, json_format

import rpc

with rpc.without_sdk():
    from pulumi.runtime.proto import language_pb2, language_pb2_grpc, plugin_pb2

Response = language_pb2.RunResponse


class LanguageHost(language_pb2_grpc.LanguageRuntimeServicer):
    """Hands programs to the main thread, where Python expects them."""

    def __init__(self) -> None:
        self.engine = sys.argv[-1] if len(sys.argv) > 1 else ""
        self.requests: SimpleQueue[language_pb2.RunRequest] = SimpleQueue()
        self.response: Future[language_pb2.RunResponse] = Future()

    def Handshake(self, request: Any, context: Any) -> Any:
        self.engine = request.engine_address
        return language_pb2.LanguageHandshakeResponse()

    def GetRequiredPackages(self, request: Any, context: Any) -> Any:
        return language_pb2.GetRequiredPackagesResponse()

    def GetPluginInfo(self, request: Any, context: Any) -> Any:
        return plugin_pb2.PluginInfo(version="3.259.0")

    def About(self, request: Any, context: Any) -> Any:
        version = sys.version.split()[0]
        return language_pb2.AboutResponse(executable=sys.executable, version=version)

    def Run(self, request: Any, context: Any) -> Any:
        self.requests.put(request)
        return self.response.result()

    def Cancel(self, request: Any, context: Any) -> Any:
        self.finish(Response(bail=True))
        return empty_pb2.Empty()

    def is_cancelled(self) -> bool:
        """Whether the engine has cancelled this run, or is about to."""
        with suppress(TimeoutError):
            self.response.result(timeout=0.5)
        return self.response.done()

    def finish(self, response: language_pb2.RunResponse) -> None:
        """Answer ``Run``, once."""
        with suppress(InvalidStateError):
            self.response.set_result(response)


def run(host: LanguageHost, request: language_pb2.RunRequest) -> language_pb2.RunResponse:
    """Run a program; what is wrong with it is told to the engine, and stops it."""
    import pulumi

    directory = request.info.program_directory
    options = json_format.MessageToDict(request.info.options)
    program = os.path.join(directory, request.info.entry_point)
    pulumi.runtime.set_all_config(dict(request.config), list(request.configSecretKeys))
    pulumi.runtime.configure(
        pulumi.runtime.Settings(
            project=request.project,
            stack=request.stack,
            monitor=request.monitor_address,
            engine=host.engine,
            parallel=request.parallel,
            dry_run=request.dryRun,
            organization=request.organization,
            root_directory=request.info.root_directory,
        )
    )
    venv = Path(request.info.root_directory, str(options.get("virtualenv", sys.prefix)))
    if not venv.samefile(sys.prefix):
        pulumi.log.error(
            f"runtime.options.virtualenv is {venv}, but this language host only runs programs in "
            f"{sys.prefix}. Set it to that, or install Pulumi's own pulumi-language-python."
        )
        return Response(bail=True)

    def run_file() -> None:
        runpy.run_path(program, run_name="__main__")

    os.chdir(directory)
    sys.argv = [program, *request.args]
    sys.path[0] = directory
    # Tasks that an error leaves behind are not news; the error is reported.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    with ThreadPoolExecutor(max(request.parallel, 1) * 4) as executor:
        loop.set_default_executor(executor)
        try:
            loop.run_until_complete(pulumi.runtime.run_in_stack(run_file))
        except pulumi.RunError as error:
            pulumi.log.error(str(error))
            return Response(bail=True)
        except SystemExit as ended:
            if ended.code:
                return Response(error=f"program exited with non-zero exit code: {ended.code}")
        except Exception:
            # Ctrl-C fails the calls that are under way, and the engine tells of it.
            if host.is_cancelled():
                return Response(bail=True)
            lines = traceback.format_exc()
            pulumi.log.error(f"Program failed with an unhandled exception:\n{lines}")
            return Response(bail=True)
    return Response()


def main() -> None:
    """Serve; run the program that the engine names.

    The SDK is imported for that only: the engine starts one process more, to ask for a version.
    """
    host = LanguageHost()
    server = rpc.serve(host, language_pb2_grpc.add_LanguageRuntimeServicer_to_server)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # no test's stdout
    response = run(host, host.requests.get())
    sys.stdout.flush()
    host.finish(response)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
