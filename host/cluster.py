"""What is done otherwise in a cluster of Incus: its members, and networks on all of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from host.client import Client, HostError


def members(client: Client) -> list[str]:
    """The members of the host's cluster that answer; none if there is no cluster.

    Raises:
        HostError: the host does not answer.
    """
    server = (client.get("/1.0") or {}).get("environment") or {}
    if not server.get("server_clustered"):
        return []
    every = client.get("/1.0/cluster/members?recursion=1") or []
    return [str(each["server_name"]) for each in every if each["status"] != "Offline"]


def member_of(state: Mapping[str, Any]) -> str:
    """The member of a cluster that an object is on; empty if there is no cluster."""
    return str(state.get("location") or "none").removeprefix("none")


def prepare_network(client: Client, name: str, desired: Mapping[str, Any]) -> None:
    """Announce a network to each member of a cluster, before it is made on all at once.

    Its description comes with that: Incus takes none afterwards.

    Raises:
        HostError: Incus refuses it.
    """
    announced = json.dumps({"description": desired.get("description", "")})
    for member in members(client):
        words = ("network", "create", name, "--type", desired["type"], "--target", member)
        done = client.run(*words, project="default", stdin=announced)
        # An `up` that was cut off may have announced it.
        if done.returncode and "already defined" not in done.stderr:
            raise HostError(done.stderr.strip())
