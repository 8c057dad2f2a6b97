"""What both plugins share: the SDK's gRPC classes without the SDK, and a server."""

from __future__ import annotations

import gc
import importlib.util
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TypeVar

import grpc

Servicer = TypeVar("Servicer")
#: Commands run at once, with room for a Cancel; threads are made when they are needed.
WORKERS = 1024


@contextmanager
def without_sdk() -> Iterator[None]:
    """Import from ``pulumi.runtime.proto`` without importing ``pulumi``, which takes 0.4 s."""
    sdk = importlib.util.find_spec("pulumi")
    if sdk is None or sdk.origin is None:
        sys.exit("error: .venv has no package pulumi; run `make venv`")
    directory = Path(sdk.origin).parent
    for name in ("pulumi", "pulumi.runtime", "pulumi.runtime.proto"):
        package = ModuleType(name)
        package.__path__ = [str(directory.joinpath(*name.split(".")[1:]))]
        sys.modules[name] = package
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "pulumi"]:
            del sys.modules[name]


def serve(
    servicer: Servicer,
    add: Callable[[Servicer, grpc.Server], None],
    finish: Callable[[], None] = lambda: None,
) -> grpc.Server:
    """Serve on a free port of the loopback and print it, as the engine expects.

    The engine ends a plugin with SIGINT; what it runs at that time ends with it. Where the engine
    itself was killed, ``finish`` is called before the plugin ends.
    """
    threading.Thread(target=_outlive_engine, args=[os.dup(0), finish], daemon=True).start()
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sizes = [(f"grpc.max_{way}_message_length", -1) for way in ("receive", "send")]
    server = grpc.server(ThreadPoolExecutor(WORKERS), options=sizes)
    add(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    gc.enable()
    print(port, flush=True)
    return server


def _outlive_engine(pipe: int, finish: Callable[[], None]) -> None:
    """End the plugin once the engine no longer holds the other end of its standard input."""
    while os.read(pipe, 1024):
        pass
    finish()
    os._exit(1)
