"""A Command's script, run as pulumi-command 1.2.1 runs it."""

import os
import subprocess
import sys
import threading
from typing import IO, Any

from runner.state import masked, plain


class CommandFailed(Exception):
    """A script ended with another status than 0; the text holds its last words, never its stdin."""


def execute(name: str, script: str, inputs: dict[str, Any], old: dict[str, Any]) -> dict[str, str]:
    """Run a script, its output line by line to stderr as ``logging`` allows; returns the output."""
    clear, hidden = plain(inputs), masked(inputs) != inputs
    environment = {**os.environ, **clear.get("environment", {})}
    if clear.get("addPreviousOutputInEnv", True):
        for stream in ("stdout", "stderr"):
            environment[f"PULUMI_COMMAND_{stream.upper()}"] = plain(old.get(stream, ""))
    process = subprocess.Popen(  # noqa: S603  # scripts are what Commands are
        [*(clear.get("interpreter") or ["/bin/sh", "-c"]), plain(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        cwd=clear.get("dir"),
        text=True,
        errors="replace",
    )
    logging = "none" if hidden else clear.get("logging", "stdoutAndStderr")
    said: dict[str, list[str]] = {"stdout": [], "stderr": []}

    def read(stream: str, pipe: IO[str]) -> None:
        for line in pipe:
            said[stream].append(line)
            if line.strip() and logging in (stream, "stdoutAndStderr"):
                print(f"    {name}: {line.rstrip()}", file=sys.stderr, flush=True)

    def write(pipe: IO[str]) -> None:
        try:
            with pipe:
                pipe.write(clear.get("stdin") or "")
        except BrokenPipeError:
            pass  # a script need not read

    assert process.stdin and process.stdout and process.stderr  # noqa: S101  # all are pipes
    pairs = (("stdout", process.stdout), ("stderr", process.stderr))
    threads = [threading.Thread(target=read, args=pair) for pair in pairs]
    for thread in threads:
        thread.start()
    write(process.stdin)
    for thread in threads:
        thread.join()
    if status := process.wait():
        last = "" if logging == "none" else "\n" + "".join(said["stderr"][-15:]).rstrip()
        raise CommandFailed(f"{name}: exit status {status}{last}")
    return {stream: "".join(lines).removesuffix("\n") for stream, lines in said.items()}
