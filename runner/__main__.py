"""python -m runner --stack NAME preview|up|destroy|outputs: a part of `pulumi`, with own state."""

import argparse
import asyncio
import json
import os
import runpy
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pulumi
import yaml
from pulumi.runtime import settings, stack

from runner.command import CommandError
from runner.engine import UNKNOWN, Engine
from runner.state import RunnerError, State, masked, plain


def read_config(name: str) -> tuple[str, dict[str, str]]:
    """The project's name, and the stack's configuration as the CLI gives it to the program."""
    project = yaml.safe_load(Path("Pulumi.yaml").read_text("utf-8"))
    file = Path(project.get("stackConfigDir", "."), f"Pulumi.{name}.yaml")
    text = file.read_text("utf-8") if file.exists() else ""
    typed = (yaml.safe_load(text) or {}).get("config") or {}
    # The CLI hands scalars on as they are written: `no` is no boolean there, and 1e3 no number.
    written = (yaml.load(text, yaml.BaseLoader) or {}).get("config") or {}  # noqa: S506  # text only
    values = {k: v["default"] for k, v in project.get("config", {}).items() if "default" in v}
    for key, value in typed.items():
        if isinstance(value, dict) and set(value) == {"secure"}:
            raise RunnerError(f"{key} is encrypted; only the Pulumi CLI can read it: install that")
        values[key] = written[key] if isinstance(written[key], str) else value
    return project["name"], {
        key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()
    }


async def run_program(engine: Engine, project: str, name: str) -> None:
    """Run ``__main__.py`` against the engine, as the CLI's language host does."""
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(16))
    loop.set_exception_handler(lambda *_: None)  # the engine tells of each failure, once
    pulumi.runtime.set_mocks(None, project, name, engine.preview, monitor=engine)  # type: ignore[arg-type]  # see Engine

    def program() -> None:
        runpy.run_path("__main__.py", run_name="__main__")
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
    print("incus-stt: its own runner runs this, not the Pulumi CLI (README.md)", file=sys.stderr)
    file = os.environ.get("PULUMI_CONFIG_PASSPHRASE_FILE")
    phrase = os.environ.get("PULUMI_CONFIG_PASSPHRASE") or (Path(file).read_text() if file else "")
    if not phrase.strip():
        raise RunnerError("set PULUMI_CONFIG_PASSPHRASE or PULUMI_CONFIG_PASSPHRASE_FILE")
    project, config = read_config(options.stack)
    state = State(Path("state", "runner", f"{options.stack}.json"), phrase.strip())
    show = plain if options.show_secrets else masked
    if options.verb == "outputs":
        print(json.dumps(show(state.outputs), indent=2))
        return 0
    engine = Engine(state, options.verb == "preview", options.target, options.diff)
    if options.verb == "destroy":
        engine.delete(set(state.resources))
    else:
        sys.path.insert(0, str(Path.cwd()))
        pulumi.runtime.set_all_config(config)
        try:
            asyncio.run(run_program(engine, project, options.stack))
        except (CommandError, OSError, pulumi.RunError) as error:
            if not engine.failed:
                engine._fail(error)
        engine.finish()
    if not engine.failed and not engine.preview:
        state.outputs = engine.outputs
        state.save()
    print("Outputs: " + json.dumps(show(engine.outputs), indent=2).replace(UNKNOWN, "[unknown]"))
    print("Resources: " + ", ".join(f"{count} {kind}" for kind, count in engine.counts.items()))
    changes = bool(set(engine.counts) - {"unchanged"})
    return int(engine.failed or (options.expect_no_changes and changes))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RunnerError as error:
        sys.exit(f"error: {error}")
