"""Whether the host's kernel has room for the machines that are to be made."""

from __future__ import annotations

from components.members import Placement
from host.cluster import member_of
from host.inotify import EACH, LIMIT, RAISE, too_few
from host.objects import INSTANCE
from host.read import Live
from stack.declare import Declaration


def warnings(declaration: Declaration, live: Live, placement: Placement) -> list[str]:
    """More machines than can boot. Of a cluster only the member that answers is known."""
    running = {
        (project, name)
        for (kind, project, name), found in live.objects.items()
        if kind == INSTANCE.name and found.get("status") == "Running"
        if found.get("type") != "virtual-machine" and live.is_of(member_of(found))
    }
    wanted = {
        (plan.domain, plan.name)
        for plan in declaration.topology.machines
        if live.is_of(placement.of(plan.domain))
    }
    more = wanted - running
    if not more or not too_few(live.inotify_instances, len(running | wanted)):
        return []
    return [
        f"{len(running)} containers run on the host and {len(more)} more are to. Each takes about "
        f"{EACH} of the {live.inotify_instances} instances of inotify that its kernel allows "
        f"({LIMIT}): not all of them will boot. On the host, as root: {RAISE}"
    ]
