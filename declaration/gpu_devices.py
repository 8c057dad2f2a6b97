"""GPU devices of profiles and machines, as Incus takes them for containers.

This is the check of infra.yml, before the host is known. Which cards a device selects is in
``gpu.devices``. Keys: Incus 6.0, "Type: gpu". ``mdev`` and ``sriov`` are for virtual machines only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from declaration.problems import Problem, show, suggest

Vendor = Literal["nvidia", "amd"]
VENDOR_IDS: dict[str, Vendor] = {"10de": "nvidia", "1002": "amd"}

#: Keys that say which card it is.
SELECTORS = ("id", "pci", "productid", "vendorid")
_KEYS = {
    "physical": (*SELECTORS, "gid", "mode", "uid"),
    "mig": (*SELECTORS, "mig.ci", "mig.gi", "mig.uuid"),
}
_FORMS = {
    "pci": (r"([0-9a-fA-F]{4,8}:)?[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\.[0-7]", "0000:01:00.0"),
    "vendorid": (r"[0-9a-fA-F]{4}", "10de"),
    "productid": (r"[0-9a-fA-F]{4}", "2684"),
    "id": (r"\d{1,3}|nvidia\.com/gpu=\S+", "0"),
    "mode": (r"0?[0-7]{3}", "0660"),
    "gid": (r"\d{1,10}", "44"),
    "uid": (r"\d{1,10}", "901"),
    "mig.uuid": (
        r"(MIG-)?[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}",
        "MIG-…, of nvidia-smi -L",
    ),
    "mig.ci": (r"\d{1,3}", "0"),
    "mig.gi": (r"\d{1,3}", "7"),
}


def normalized(device: Mapping[str, str]) -> dict[str, str]:
    """A device with ``vendorid`` and ``productid`` in lower case.

    Operators copy ids from lspci or from a data sheet, in either case. Incus compares them with the
    kernel's, which are in lower case, without folding the case (its ``gpuSelected``).
    """
    if device.get("type") != "gpu":
        return dict(device)
    ids = ("vendorid", "productid")
    return {
        key: value.lower() if key in ids and re.fullmatch(_FORMS[key][0], value) else value
        for key, value in device.items()
    }


def vendor_of(device: Mapping[str, str]) -> Vendor:
    """Whose card a device means; NVIDIA's if it does not say."""
    return VENDOR_IDS.get(device.get("vendorid", "").lower(), "nvidia")


def pci_of(address: str) -> str:
    """A PCI address as the kernel writes it: nvidia-smi has eight digits before the first colon."""
    short = address.lower()
    if short.count(":") == 1:
        short = f"0000:{short}"
    domain, _, rest = short.partition(":")
    return f"{domain[-4:]}:{rest}"


def may_be_same(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Whether two devices may mean the same card, or the same part of one, as far as they say."""
    return not any(
        _told(one, key) and _told(other, key) and _told(one, key) != _told(other, key)
        for key in _KEYS["mig"]
    )


def _told(device: Mapping[str, str], key: str) -> str:
    """What a device says of its card in a form that can be compared; empty: nothing."""
    value = device.get(key, "").lower()
    if key == "pci" and value:
        return pci_of(value)
    if key == "id" and not value.isdigit():
        return ""  # a name of CDI may be that of any card
    return value.removeprefix("mig-")


def device_problems(device: Mapping[str, str], place: str) -> list[Problem]:
    """What Incus would refuse in a GPU device, or silently take for another card."""
    kind = device.get("gputype", "physical")
    if kind not in _KEYS:
        return [
            Problem(
                f"{place}.gputype",
                f"{show(kind)} is not for containers. Allowed: {', '.join(_KEYS)}.",
            )
        ]
    problems: list[Problem] = []
    for key, value in device.items():
        if key in ("type", "gputype"):
            continue
        if key not in _KEYS[kind]:
            problems.append(
                Problem(
                    f"{place}.{key}",
                    f"is not a key of a GPU device of gputype {kind}.{suggest(key, _KEYS[kind])} "
                    f"Allowed: {', '.join(_KEYS[kind])}.",
                )
            )
            continue
        form, example = _FORMS[key]
        if not re.fullmatch(form, value):
            problems.append(
                Problem(
                    f"{place}.{key}", f"{show(value)} is not allowed. Use one such as {example}."
                )
            )
    selectors = [key for key in ("id", "pci") if key in device]
    products = [key for key in ("vendorid", "productid") if key in device]
    if len(selectors) > 1 or (selectors and products):
        problems.append(
            Problem(
                place,
                f"has {' and '.join([*selectors, *products])}. Name the card by pci, or by id, or "
                "by vendorid and productid.",
            )
        )
    if kind == "mig" and not ("mig.uuid" in device or {"mig.ci", "mig.gi"} <= set(device)):
        problems.append(
            Problem(place, "has gputype mig and names no instance. Add mig.uuid, of nvidia-smi -L.")
        )
    return problems
