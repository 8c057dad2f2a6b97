"""What machines were made from, where that is not what ``stt:image`` says."""

from __future__ import annotations

from collections.abc import Iterator

from components.command import Host
from host.instance import stood_in_by
from host.objects import INSTANCE, owner_of
from stack.declare import Declaration


def warnings(declaration: Declaration, host: Host) -> Iterator[str]:
    """Machines from a stand-in for another distribution, and somebody else's that are kept."""
    if host.live is None:
        return
    settings = declaration.settings
    for plan in declaration.topology.machines:
        actual = host.live.find(INSTANCE.name, plan.name, plan.domain)
        if not actual:
            continue
        if other := stood_in_by(settings.image, actual):
            yield f"{plan.full_name} is {other}, which stands in for stt:image {settings.image}."
        if settings.adopt and owner_of(actual) != host.known_owner:
            config = actual.get("config") or {}
            image = config.get("image.description") or "an image that does not say its name"
            yield (
                f"{plan.full_name} is taken over as it is, made from {image}: stt:image "
                f"({settings.image}) applies only to machines that `up` creates. To recreate it: "
                f"incus delete --force --project {plan.domain} {plan.name}"
            )
