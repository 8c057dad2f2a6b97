"""A Command's script, run as pulumi-command 1.2.1 runs it."""

import contextlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from runner.state import RunnerError, masked, plain


def execute(name: str, script: str, inputs: dict[str, Any], old: dict[str, Any]) -> dict[str, str]:
    """Run a script, its output line by line to stderr as ``logging`` allows; return the output.

    Raises:
        RunnerError: it failed; the text holds its last words, never its stdin.
    """
    clear = plain(inputs)
    logging = clear.get("logging", "stdoutAndStderr") if masked(inputs) == inputs else "none"
    environment = {**os.environ, **clear.get("environment", {})}
    if clear.get("addPreviousOutputInEnv", True):
        environment |= {f"PULUMI_COMMAND_{key.upper()}": plain(old[key]) for key in old}
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
    said: dict[str, list[str]] = {"stdout": [], "stderr": []}

    def read(stream: str) -> None:
        for line in getattr(process, stream):
            said[stream].append(line)
            if line.strip() and logging in (stream, "stdoutAndStderr"):
                print(f"    {name}: {line.rstrip()}", file=sys.stderr, flush=True)

    with ThreadPoolExecutor(2) as readers:
        readers.map(read, said)
        # A script need not read.
        with contextlib.suppress(BrokenPipeError), process.stdin as pipe:  # type: ignore[union-attr]
            pipe.write(clear.get("stdin") or "")
    if status := process.wait():
        raise RunnerError("".join([f"{name}: exit status {status}\n", *said["stderr"][-15:]]))
    return {stream: "".join(lines).removesuffix("\n") for stream, lines in said.items()}
