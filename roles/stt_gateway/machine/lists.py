"""The files that nginx includes: the servers, and how many requests are let in."""

from __future__ import annotations

import json
from collections.abc import Collection

from .settings import Server, Settings


def servers_conf(
    settings: Settings, serving: Collection[Server], refusing: Collection[Server] = ()
) -> str:
    """The servers, those in ``serving`` first: they get the requests, the least busy one first.

    Every server stands there once more as ``backup``: a request that all of the first have failed
    goes there. So one that works since a minute ago has its servers even where the list that it
    was accepted with has become wrong, and may go to a server twice that has come back. nginx marks
    none as failed by itself (``max_fails=0``): it would call all of them dead after one bad moment.
    Those in ``refusing`` refuse the key, and get nothing.
    """
    every = [each for each in settings.servers if each not in refusing]
    first = [each for each in every if each in serving] or every
    lines = [
        "# Made by the watcher of the gateway, again and again.",
        "upstream stt {",
        "    zone stt 256k;",
        "    least_conn;",
        *(f"    server {each.place} max_fails=0;" for each in first),
        *(f"    server {each.place} max_fails=0 backup;" for each in every),
        "}",
        "map $host $each_server {",
        f"    default '{_each_server(settings)}';",
        "}",
    ]
    return "".join(f"{line}\n" for line in lines)


def places_conf(settings: Settings) -> str:
    """How many requests with work are let in at a time."""
    return f"limit_conn work {settings.places};\n"


def _each_server(settings: Settings) -> str:
    """What a client is told that asks for what is a matter of one server."""
    names = ", ".join(f"{each.name} (http://{each.place})" for each in settings.servers)
    error = {
        "message": f"This is a matter of each STT server. Ask them: {names}.",
        "type": "invalid_request_error",
        "param": None,
        "code": None,
    }
    return json.dumps({"error": error}, separators=(",", ":"))
