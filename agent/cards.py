"""The cards of a machine, as NVIDIA's driver reports them."""

from __future__ import annotations

import contextlib

from agent.machine import Machine, StepError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

#: What nvidia-smi is asked, in this order.
NVIDIA_SMI_FIELDS = "pci.bus_id,name,memory.total,compute_cap,driver_version"
#: Where NVIDIA's container toolkit puts it, in a machine that has a card.
NVIDIA_SMI = "/usr/bin/nvidia-smi"
#: Seconds that it may take; a card that is broken lets it wait for ever.
_DEADLINE = 10


def ask_cards(machine: Machine) -> Callable[[], str]:
    """Ask nvidia-smi meanwhile; the result waits for what it says, a line for each card.

    Empty if the machine has none, or it fails.
    """
    program = machine.path(NVIDIA_SMI)
    if not program.exists():
        return str
    # Not at the top: a machine without a card is checked sooner so.
    import threading

    said: list[str] = []

    def ask() -> None:
        words = [f"--query-gpu={NVIDIA_SMI_FIELDS}", "--format=csv,noheader,nounits"]
        with contextlib.suppress(StepError):
            done = machine.run([str(program), *words], check=False, deadline=_DEADLINE)
            said.append("" if done.returncode else done.stdout)

    # Where the driver hangs, a program that asks it cannot be killed: nobody waits for its end.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()

    def result() -> str:
        thread.join(_DEADLINE + 1)
        return "".join(said)

    return result
