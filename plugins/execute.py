"""Runs commands as pulumi-command 1.2.1 does."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable
from typing import Any

STREAMS = ("stdout", "stderr")


class CommandError(Exception):
    """A command that failed, in pulumi-command's words."""


class Runner:
    """Runs commands, any number at once, until it is cancelled."""

    def __init__(self) -> None:
        self._lock, self._running, self._cancelled = threading.Lock(), set[Any](), False

    def cancel(self) -> None:
        """Kill what runs, and start nothing more.

        What a command has started is in this plugin's process group; it would keep output open.
        """
        with self._lock:
            self._cancelled = True
            for process in self._running:
                process.kill()
            if self._running:
                os.killpg(0, signal.SIGTERM)

    def wait(self) -> None:
        """Wait for what runs."""
        for process in list(self._running):
            process.wait()

    def run(
        self,
        command: str,
        inputs: dict[str, Any],
        previous: dict[str, Any],
        log: Callable[[str], None],
        seconds: float = 0,
    ) -> dict[str, str]:
        """Run a command, for at most ``seconds`` where that is not 0; its output.

        Raises:
            CommandError: it failed; the text holds the command and what it wrote, never its stdin.
        """
        said: dict[str, list[str]] = {"stdout": [], "stderr": [], "both": []}
        logging = inputs.get("logging") or "stdoutAndStderr"
        stdin = inputs.get("stdin") or ""

        def read(stream: str) -> None:
            for line in getattr(process, stream):
                said[stream].append(line)
                said["both"].append(line)
                if logging in (stream, "stdoutAndStderr"):
                    log(line.rstrip("\r\n"))

        try:
            process = self._start(command, inputs, previous)
            timer = threading.Timer(seconds, process.kill)
            if seconds:
                timer.start()
            readers = [threading.Thread(target=read, args=[stream]) for stream in STREAMS]
            for reader in readers:
                reader.start()
            if process.stdin:
                with contextlib.suppress(BrokenPipeError), process.stdin:  # it need not read
                    process.stdin.write(stdin)
            status = process.wait()
            for reader in readers:
                reader.join()
            timer.cancel()
            self._running.discard(process)
            if status < 0:
                name = signal.strsignal(-status) or str(-status)
                raise CommandError(f"signal: {name.lower()}")
            if status:
                raise CommandError(f"exit status {status}")
        except (CommandError, OSError) as error:
            why = f"{error.strerror}: {error.filename}" if isinstance(error, OSError) else error
            shown = json.dumps(command, ensure_ascii=False)
            raise CommandError(f"{why}: running {shown}:\n{''.join(said['both'])}") from error
        return {stream: "".join(said[stream]).removesuffix("\n") for stream in STREAMS}

    def _start(
        self, command: str, inputs: dict[str, Any], previous: dict[str, Any]
    ) -> subprocess.Popen[str]:
        environment = {**os.environ, **(inputs.get("environment") or {})}
        if inputs.get("addPreviousOutputInEnv") is not False:
            said = {name: previous[name] for name in STREAMS if previous.get(name)}
            environment |= {f"PULUMI_COMMAND_{name.upper()}": text for name, text in said.items()}
        with self._lock:
            if self._cancelled:
                raise CommandError("context canceled")
            process = subprocess.Popen(  # noqa: S603  # commands are what this is for
                [*(inputs.get("interpreter") or ["/bin/sh", "-c"]), command],
                stdin=subprocess.PIPE if inputs.get("stdin") else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
                cwd=inputs.get("dir"),
                encoding="utf-8",
                errors="replace",
            )
            self._running.add(process)
        return process
