"""The cards: there, with a driver that is new enough, and given to containers."""

from __future__ import annotations

from collections.abc import Iterator

from declaration.gpu_devices import VENDOR_IDS
from doctor.case import Case
from doctor.check import check
from doctor.finding import Finding, broken, doubtful, good
from gpu.planner import driver_problems
from stack.checks import OLLAMA_ROLE

_CPU = "on a host without a card: make up STACK=cpu, or STACK=dev"


@check
def card(case: Case) -> Iterator[Finding]:
    """Whether there is a card of the vendor that each machine asks for."""
    owners = case.declaration.topology.wants_gpu
    asked = [plan for plan in owners if case.is_here(plan)]
    for plan in owners:
        if plan not in asked:
            where = (case.instance(plan) or {}).get("location")
            yield doubtful(
                "card",
                f"{plan.name} is on {where}, whose cards are not checked",
                f"{case.make('doctor')} with stt:connection leading to {where}",
            )
    if not owners:
        found = ", ".join(str(each) for each in case.cards if each.nvidia)
        suffix = f"; the host has {found}" if found else ""
        yield good("card", f"none is asked for: this stack runs on the CPU{suffix}")
        return
    wanted = {plan.gpu_vendor or "nvidia" for plan in asked}
    for vendor in sorted(wanted):
        name = "NVIDIA" if vendor == "nvidia" else "AMD"
        there = [each for each in case.cards if VENDOR_IDS.get(each.vendor_id) == vendor]
        if there:
            yield good("card", "; ".join(each.name for each in there))
        elif _on_bus(case, vendor):
            yield good("card", f"a card of {name} is on the PCI bus")
        else:
            machines = ", ".join(plan.name for plan in asked)
            yield broken("card", f"the host has no {name} card, and {machines} is to own one", _CPU)


def _on_bus(case: Case, vendor: str) -> bool:
    """Whether sysfs has a card of a vendor, before Incus is there to tell."""
    rows = (line.split() for line in case.answer("cards").text.splitlines())
    return any(VENDOR_IDS.get(row[0].removeprefix("0x")) == vendor for row in rows if row)


def _with_nvidia(case: Case) -> bool:
    """Whether a machine is to own a card of NVIDIA's, and the host has one and can be looked at.

    Without one, its line has said all. A card that only nvidia-smi knows counts (as in WSL).
    """
    owners = (plan for plan in case.declaration.topology.wants_gpu if case.is_here(plan))
    asked = (plan.gpu_vendor or "nvidia" for plan in owners)
    there = case.answer("nvidia_smi").there or _on_bus(case, "nvidia")
    return "nvidia" in asked and not case.remote and there


@check
def driver(case: Case) -> Iterator[Finding]:
    """Whether NVIDIA's driver works, and is new enough for what runs."""
    if not _with_nvidia(case):
        return
    said = case.answer("nvidia_smi")
    if not said.there:
        yield broken(
            "driver",
            "there is no nvidia-smi on the host",
            "install NVIDIA's driver (Debian: the package nvidia-driver), then restart the host",
        )
    elif not said.worked:
        yield broken(
            "driver",
            f"nvidia-smi fails: {said.last}",
            "if the driver was just updated, restart the host; otherwise install it again",
        )
    else:
        with_ollama = bool(case.declaration.topology.with_role(OLLAMA_ROLE))
        with_driver = [each for each in case.cards if each.nvidia and each.driver]
        problems = [p for each in with_driver for p in driver_problems(each, with_ollama)]
        if problems:
            found, _, todo = problems[0].message.partition(". ")
            yield broken("driver", found, f"{todo[:1].lower()}{todo[1:].removesuffix('.')}")
        elif with_driver:
            yield good("driver", with_driver[0].driver)
        else:
            yield doubtful("driver", "nvidia-smi names no card", "see nvidia-smi on the host")


@check
def toolkit(case: Case) -> Iterator[Finding]:
    """Whether Incus can give the driver to a container (``nvidia.runtime``)."""
    if not _with_nvidia(case):
        return
    said = case.answer("toolkit")
    if said.worked:
        yield good("container toolkit", f"nvidia-container-cli {said.text.splitlines()[0][-20:]}")
        return
    why = "there is no nvidia-container-cli" if not said.there else f"it fails: {said.last}"
    yield broken(
        "container toolkit",
        f"{why}; no machine with nvidia.runtime starts",
        "install nvidia-container-toolkit on the host",
    )
