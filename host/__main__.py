"""``python -m host apply|delete TYPE …``, ``close``, ``firewall``, …: what a Command runs.

The desired state is JSON on stdin; what was done is JSON on stdout.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import declaration.interrupt  # noqa: F401  # Ctrl-C ends it with a line
from declaration.connection import parse_connection
from host.client import Client, HostError
from host.instance import apply_instance
from host.objects import (
    AI_SUFFIX,
    OWNER,
    TYPES,
    VOLUME,
    Place,
    apply_object,
    delete_object,
    set_rules,
)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="host")
    parser.add_argument("--connection", default="local", type=parse_connection)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("apply", "delete"):
        words = verbs.add_parser(verb)
        words.add_argument("type", choices=sorted(TYPES))
        words.add_argument("name")
        words.add_argument("--project", default="")
        words.add_argument("--pool", default="")
        words.add_argument("--member", default="", help="of a volume: where in a cluster it is")
        words.add_argument("--owner", default="", help="the stack: PROJECT/STACK/ID")
        if verb == "apply":
            words.add_argument("--image", default="", help="of an instance")
            words.add_argument("--rules", default="add", choices=["add", "remove", "exact"])
            words.add_argument("--former", default="", help="the project's previous name")
    for verb in ("close", "open"):
        words = verbs.add_parser(verb, help="an ACL gets the rules of stdin, and has no others")
        words.add_argument("name")
        words.set_defaults(type="acl")
    words = verbs.add_parser("egress")
    words.add_argument("do", choices=["run", "close-later"])
    words.add_argument("bridge")
    words.add_argument("command", nargs="?", default="", help="shell text, of run")
    words.add_argument("--unless", default="", help="shell text; if it succeeds, nothing opens")
    words = verbs.add_parser("firewall", help="whom a bridge's machines may ask for names")
    words.add_argument("do", choices=["set", "remove"])
    words.add_argument("name", nargs="?", default="", help="the bridge, of remove")
    words.add_argument("--owner", default="", help="the stack: PROJECT/STACK/ID")
    words.set_defaults(type="")
    words = verbs.add_parser("upload")
    words.add_argument("source", type=Path)
    words.add_argument("machine")
    words.add_argument("--project", required=True)
    words.add_argument("agent", nargs="+", help="the agent's command line")
    return parser


def _do(options: argparse.Namespace) -> dict[str, Any]:
    if options.verb == "firewall":
        # Not at the top: an edit of an Incus object does without, and starts sooner.
        from host.dns_rule import apply_rules, remove_rules

        if options.do == "set":
            return apply_rules(options.connection, json.load(sys.stdin))
        return remove_rules(options.connection, options.name, options.owner)
    if options.type not in ("acl", "network"):
        return _edit(options)
    from host.egress import SUFFIX, Egress  # not at the top: most edits start sooner without

    bridge = options.name.removesuffix(SUFFIX).removesuffix(AI_SUFFIX)
    egress = Egress(options.connection, bridge)
    network = options.type == "network"
    with egress.rewriting() if network else egress.editing():
        left_open = network and options.verb == "apply" and egress.is_left_open()
        done = _edit(options)
    # Of the bridge's other ACLs, the one to install from is there only for a while.
    lost = done.pop("cut", False) and options.name == bridge
    if lost or left_open or egress.is_to_be_cut():
        egress.cut()
    return done


def _edit(options: argparse.Namespace) -> dict[str, Any]:
    client = Client(options.connection)
    if options.verb in ("close", "open"):
        return set_rules(client, Place(options.name, "default"), json.load(sys.stdin))
    kind = TYPES[options.type]
    place = Place(options.name, options.project, options.pool, options.member)
    if options.verb == "delete":
        return delete_object(client, kind, place, options.owner)
    desired = json.load(sys.stdin)
    desired["config"] = {**desired.get("config", {}), OWNER: options.owner}
    if kind.name == "instance":
        return apply_instance(client, place, desired, options.image)
    if kind is VOLUME:
        # Not at the top: most edits start sooner without.
        from host.moves import fetch_volume
        from host.volume import apply_volume

        if not fetch_volume(client, place, options.former, options.owner):
            return {"done": "comes with its machine"}
        return apply_volume(client, place, desired)
    return apply_object(client, kind, place, desired, rules=options.rules)


def _egress(options: argparse.Namespace) -> int:
    # Not at the top: an edit of an Incus object does without, and starts sooner.
    from host.egress import Egress, run_open

    egress = Egress(options.connection, options.bridge)
    if options.do == "run":
        return run_open(egress, options.command, options.unless)
    egress.close_later()
    return 0


def main() -> int:
    """Do one thing. Returns the exit status."""
    options = _parser().parse_args()
    try:
        if options.verb == "egress":
            return _egress(options)
        if options.verb == "upload":
            # Not at the top: an edit of an Incus object does without, and starts sooner.
            from host.upload import upload

            print(
                upload(
                    options.connection,
                    options.project,
                    options.machine,
                    options.agent,
                    options.source,
                ),
                end="",
            )
        else:
            done = _do(options)
            if why := done.pop("why", ""):
                print(why, file=sys.stderr)
            print(json.dumps(done))
    except HostError as error:
        print(error.user_message, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
