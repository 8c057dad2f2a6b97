"""The cards of a machine, as NVIDIA's driver reports them."""

from __future__ import annotations

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
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor(1).submit(_ask, machine, str(program)).result


def _ask(machine: Machine, program: str) -> str:
    words = [program, f"--query-gpu={NVIDIA_SMI_FIELDS}", "--format=csv,noheader,nounits"]
    try:
        done = machine.run(words, check=False, deadline=_DEADLINE)
    except StepError:
        return ""
    return "" if done.returncode else done.stdout
