"""python -m runner --stack NAME preview|up|destroy|outputs: a part of `pulumi`, with own state."""

import argparse
import asyncio
import json
import logging
import os
import runpy
import sys
from pathlib import Path

import pulumi
import yaml
from pulumi.runtime import settings, stack

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
    for key in [k for k, v in typed.items() if isinstance(v, dict) and set(v) == {"secure"}]:
        raise RunnerError(f"{key} is encrypted; only the Pulumi CLI can read it: install that")
    values |= {k: written[k] if isinstance(written[k], str) else typed[k] for k in typed}
    texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in values.items()}
    return project["name"], texts


async def run_program(engine: Engine, project: str, name: str) -> None:
    """Run ``__main__.py`` against the engine, as the CLI's language host does."""
    # The engine tells of each failure, once.
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    pulumi.runtime.set_mocks(None, project, name, engine.preview, monitor=engine)  # type: ignore[arg-type]  # see Engine

    def program() -> None:
        runpy.run_path("__main__.py", run_name="__main__")
        top = settings.get_root_resource()
        top.register_outputs(top.outputs)  # type: ignore[union-attr]  # set_mocks made it

    await stack.run_pulumi_func(program)


def main() -> int:
    """Run one verb; returns the exit status."""
    parser = argparse.ArgumentParser(prog="runner")
    parser.add_argument("--stack", required=True)
    parser.add_argument("verb", choices=["preview", "up", "destroy", "outputs"])
    for patterns in ("--target", "--replace"):
        parser.add_argument(patterns, action="append", default=[])
    for flag in ("--diff", "--expect-no-changes", "--show-secrets"):
        parser.add_argument(flag, action="store_true")
    options = parser.parse_args()
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    print("incus-stt: its own runner runs this, not the Pulumi CLI (README.md)", file=sys.stderr)
    file = Path(os.environ.get("PULUMI_CONFIG_PASSPHRASE_FILE") or os.devnull)
    phrase = os.environ.get("PULUMI_CONFIG_PASSPHRASE") or file.read_text("utf-8")
    if not phrase.strip():
        raise RunnerError("set PULUMI_CONFIG_PASSPHRASE or PULUMI_CONFIG_PASSPHRASE_FILE")
    project, config = read_config(options.stack)
    state = State(Path("state", "runner", f"{options.stack}.json"), phrase.strip())
    show = plain if options.show_secrets else masked
    if options.verb == "outputs":
        print(json.dumps(show(state.outputs), indent=2))
        return 0
    engine = Engine(state, options.verb == "preview", options.target or ["*"], options.replace)
    if options.verb != "destroy":
        pulumi.runtime.set_all_config(config)
        try:
            asyncio.run(run_program(engine, project, options.stack))
        except (RunnerError, OSError, pulumi.RunError) as error:
            if not engine.failed:
                engine.fail(error)
    if not engine.failed:  # asyncio.run has waited for what ran
        engine.finish()
    if not engine.failed:
        state.outputs = engine.outputs
        if not engine.preview:
            state.save()
    print("Outputs: " + json.dumps(show(state.outputs), indent=2).replace(UNKNOWN, "[unknown]"))
    print("Resources: " + ", ".join(f"{count} {kind}" for kind, count in engine.counts.items()))
    unexpected = options.expect_no_changes and engine.counts.keys() - {"unchanged"}
    return int(engine.failed or bool(unexpected))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RunnerError as error:
        sys.exit(f"error: {error}")
