"""The checks by subject. Importing this registers them, in the order of the screen."""

from doctor.checks import (  # noqa: I001  # the order of the screen
    host,
    cards,
    incus,
    network,
    machines,
    services,
    updates,
)

__all__ = ["cards", "host", "incus", "machines", "network", "services", "updates"]
