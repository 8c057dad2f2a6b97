"""python -m runner --stack NAME preview|up|destroy|outputs. It is no full Pulumi: see README.md."""

import argparse
import asyncio
import json
import os
import runpy
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pulumi
import yaml
from pulumi.runtime import settings, stack

from runner.command import CommandFailed
from runner.engine import Engine
from runner.state import RunnerError, State, masked, plain


def read_config(root: Path, name: str) -> tuple[str, dict[str, str]]:
    """The project's name, and the stack's configuration as the CLI would give it to the program."""
    project = yaml.safe_load((root / "Pulumi.yaml").read_text("utf-8"))
    file = root / project.get("stackConfigDir", ".") / f"Pulumi.{name}.yaml"
    text = file.read_text("utf-8") if file.exists() else ""
    typed = (yaml.safe_load(text) or {}).get("config") or {}
    # The CLI hands scalars on as they are written: `no` is no boolean, and 1e3 is no number.
    written = (yaml.load(text, yaml.BaseLoader) or {}).get("config") or {}  # noqa: S506  # text alone
    defaults = {k: v["default"] for k, v in (project.get("config") or {}).items() if "default" in v}
    for key, value in typed.items():
        if isinstance(value, dict) and set(value) == {"secure"}:
            raise RunnerError(f"{key} is encrypted, which only the Pulumi CLI can read: install it")
    values = {**defaults, **typed, **{k: v for k, v in written.items() if isinstance(v, str)}}
    return project["name"], {
        key if ":" in key else f"{project['name']}:{key}": value
        if isinstance(value, str)
        else json.dumps(value)
        for key, value in values.items()
    }


async def run_program(engine: Engine, root: Path, project: str, name: str) -> None:
    """Run ``__main__.py`` against the engine, as the CLI's language host does."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(16))
    pulumi.runtime.set_mocks(engine, project, name, engine.preview, monitor=engine)  # type: ignore[arg-type]  # no Mocks are asked

    def program() -> None:
        runpy.run_path(str(root / "__main__.py"), run_name="__main__")
        top = settings.get_root_resource()
        assert isinstance(top, stack.Stack)  # noqa: S101  # set_mocks made it
        top.register_outputs(top.outputs)

    await stack.run_pulumi_func(program)


def main() -> int:
    """Run one verb; returns the exit status."""
    parser = argparse.ArgumentParser(prog="runner")
    parser.add_argument("--stack", required=True)
    parser.add_argument("verb", choices=["preview", "up", "destroy", "outputs"])
    parser.add_argument("--target", action="append", default=[])
    for flag in ("--diff", "--expect-no-changes", "--show-secrets"):
        parser.add_argument(flag, action="store_true")
    options = parser.parse_args()
    print(
        "incus-stt: this is its own runner, not Pulumi: no history, no policies.", file=sys.stderr
    )
    root = Path.cwd()
    file = os.environ.get("PULUMI_CONFIG_PASSPHRASE_FILE")
    phrase = os.environ.get("PULUMI_CONFIG_PASSPHRASE") or (Path(file).read_text() if file else "")
    if not phrase:
        raise RunnerError("set PULUMI_CONFIG_PASSPHRASE or PULUMI_CONFIG_PASSPHRASE_FILE")
    project, config = read_config(root, options.stack)
    state = State(root / "state" / "runner" / f"{options.stack}.json", phrase.strip())
    show = plain if options.show_secrets else masked
    if options.verb == "outputs":
        print(json.dumps(show(state.outputs), indent=2))
        return 0
    engine = Engine(state, options.verb == "preview", options.target, options.diff)
    error: BaseException | None = None
    if options.verb == "destroy":
        engine.delete(set(state.resources))
    else:
        sys.path.insert(0, str(root))
        pulumi.runtime.set_all_config(config)
        try:
            asyncio.run(run_program(engine, root, project, options.stack))
        except (Exception, SystemExit) as caught:
            error, engine.failed = caught, True
        engine.finish()
    if not engine.failed and options.verb != "preview":
        state.outputs = engine.outputs
        state.save()
    if isinstance(error, pulumi.RunError | RunnerError):
        print(f"error: {error}", file=sys.stderr)
    elif error and not isinstance(error, CommandFailed):
        raise error
    counts = ", ".join(f"{count} {kind}" for kind, count in engine.counts.items())
    print(f"Resources: {counts or 'none'}")
    print(
        "Outputs: "
        + json.dumps(show(engine.outputs), indent=2).replace("04da6b54", "[unknown] 04da6b54")
    )
    changes = set(engine.counts) - {"unchanged"}
    return int(engine.failed or (options.expect_no_changes and bool(changes)))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RunnerError as error:
        sys.exit(f"error: {error}")
