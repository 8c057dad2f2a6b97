"""Makes a host ready for a stack: the Pulumi CLI and, at the same time, Incus, a pool, the image.

Usage: host.py STACK.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent


def setting(stack: str, key: str) -> str:
    """A setting of a stack: from its file, else the default in Pulumi.yaml."""
    schema = yaml.safe_load((ROOT / "Pulumi.yaml").read_text(encoding="utf-8"))["config"]
    file = ROOT / "stacks" / f"Pulumi.{stack}.yaml"
    try:
        config = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        known = sorted(path.name.split(".")[1] for path in file.parent.glob("Pulumi.*.yaml"))
        sys.exit(f"incus-stt: error: there is no stack {stack}. Stacks: {', '.join(known)}.")
    except yaml.YAMLError as error:
        sys.exit(f"incus-stt: error: {file.name} is not valid YAML: {' '.join(str(error).split())}")
    return str((config.get("config") or {}).get(f"stt:{key}", schema[f"stt:{key}"]["default"]))


def set_up_incus(stack: str) -> int:
    """Run what is to be run here; hosts elsewhere are their owners'."""
    connection = setting(stack, "connection")
    if connection != "local":
        print(f"incus-stt: Incus runs at {connection}: nothing is set up there", file=sys.stderr)
        return 0
    environment = {**os.environ, "STT_POOL": setting(stack, "pool")}
    done = subprocess.run([ROOT / "bootstrap" / "incus.sh"], env=environment, check=False)  # noqa: S603
    if done.returncode:
        return done.returncode
    image = setting(stack, "image")
    # It prints the image's name, which the program finds out by itself.
    done = subprocess.run(  # noqa: S603
        [ROOT / "bootstrap" / "image.sh", image], stdout=subprocess.DEVNULL, check=False
    )
    return done.returncode


def main(stack: str) -> int:
    """Both at once: building the CLI takes as long as building the image."""
    with subprocess.Popen([ROOT / "bootstrap" / "cli.sh"], stdout=subprocess.DEVNULL) as cli:  # noqa: S603
        try:
            failed = set_up_incus(stack)
        except BaseException:
            cli.terminate()
            raise
        if failed:
            cli.terminate()
            return failed
    return cli.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
