"""An unchanged configuration keeps its compute type, whatever answers or runs at the moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from host.client import HostError
from host.read import Live, MachineState
from tests.unit.cluster import CLUSTER, cluster_after
from tests.unit.program import Program, host_after, host_with, run
from tests.unit.values import CARD, STACKS

SERVICE = "ai-tools/gpu-server/stt_server/service"
#: A host on which nvidia-smi is not asked, and one that does not tell the card's memory.
REMOTE = replace(host_with(CARD), nvidia_smi="")
SILENT = host_with(replace(CARD, memory=None))
GPU_SERVER = ("ai-tools", "gpu-server")
#: llama3.1:8b, as Ollama lists its file.
FILE = 4_920_753_328


def kind(program: Program) -> str:
    """The compute type of the STT service."""
    found: str = program.outputs["stt_quantization"]
    return found


def up_while_stopped(live: Live, before: Program, **settings: Any) -> Program:
    """An `up` that finds the machine stopped, and starts it."""
    machines = dict(live.machines)
    late: Mapping[tuple[str, str], MachineState] = {GPU_SERVER: machines.pop(GPU_SERVER)}
    place = ("instance", *GPU_SERVER)
    objects = {**live.objects, place: {**live.objects[place], "status": "Stopped"}}
    stopped = replace(live, machines=machines, objects=objects)
    return run("gpu", stopped, before, late=late, **settings)


def infra_with(tmp_path: Path, **changes: Any) -> str:
    """The usual topology with something else for the machine with the card."""
    infra = yaml.safe_load((STACKS / "infra.yml").read_text())
    for name, machine in infra["domains"]["ai-tools"]["machines"].items():
        machine |= changes if name == "gpu-server" else {}
    (tmp_path / "infra.yml").write_text(yaml.safe_dump(infra))
    return str(tmp_path / "infra.yml")


def with_ollama(live: Live, size: int = 0, loaded: int = 0, name: str = "llama3.1:8b") -> Live:
    """The host, with a model that Ollama has pulled, and perhaps loaded; bytes."""
    answers: dict[str, Any] = {
        "ollama_tags": {"models": [{"name": name, "size": size}] if size else []},
        "ollama_ps": {
            "models": [{"name": name, "size": loaded, "size_vram": loaded}] if loaded else []
        },
    }
    state = replace(live.machines[GPU_SERVER], answers=answers)
    return replace(live, machines={**live.machines, GPU_SERVER: state})


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    ("mib", "keep_alive", "gib", "chosen"),
    [
        (10240, "5m", 5.6, "int8_float16"),
        (16376, "5m", 12, "float16"),
        (16376, "-1", 16, "float16"),
    ],
)
def test_it_does_not_matter_whether_a_model_of_ollama_is_loaded(
    mib: int, keep_alive: str, gib: float, chosen: str
) -> None:
    ollama = {"models": ["llama3.1:8b"], "keepAlive": keep_alive}
    empty = host_with(replace(CARD, memory=mib))
    first = run("gpu", empty, ollama=ollama)
    host = host_after(first, empty)
    for loaded in (0, int(gib * 2**30)):
        again = run("gpu", with_ollama(host, FILE, loaded), first, ollama=ollama)
        assert (kind(again), again.changes(first)) == (chosen, {})


@pytest.mark.sweep
def test_a_size_that_is_known_later_changes_it_once_at_most() -> None:
    """The name tells no size: it is known once pulled, and not while the machine is stopped."""
    ollama = {"models": ["llama3.1"]}
    for mib, types in ((10240, ("float16", "int8_float16")), (12288, ("float16", "float16"))):
        empty = host_with(replace(CARD, memory=mib))
        first = run("gpu", empty, ollama=ollama)
        pulled = with_ollama(host_after(first, empty), FILE, name="llama3.1:latest")
        second = run("gpu", pulled, first, ollama=ollama)
        assert (kind(first), kind(second)) == types
        host = with_ollama(host_after(second, empty), FILE, name="llama3.1:latest")
        assert not run("gpu", host, second, ollama=ollama).changes(second)
        third = up_while_stopped(host, second, ollama=ollama)
        assert kind(third) == types[1] and SERVICE not in third.changes(second)
        kept = "which the service has: what llama3.1 takes is not known at the moment"
        assert (kept in "\n".join(third.log)) == (types[1] != "float16")
        assert kind(run("gpu", host, third, ollama=ollama)) == types[1]


def test_a_size_in_a_name_changes_nothing_while_the_machine_is_stopped() -> None:
    """By its name it does not fit beside float16; by its file it does."""
    ollama = {"models": ["llama3.1:8b"]}
    empty = host_with(replace(CARD, memory=10600))
    first = run("gpu", empty, ollama=ollama)
    second = run("gpu", with_ollama(host_after(first, empty), FILE), first, ollama=ollama)
    assert (kind(first), kind(second)) == ("int8_float16", "float16")
    host = with_ollama(host_after(second, empty), FILE)
    third = up_while_stopped(host, second, ollama=ollama)
    assert kind(third) == "float16" and SERVICE not in third.changes(second)


def test_what_does_not_fit_is_not_kept_for_a_size_that_is_missing() -> None:
    first = run("gpu")
    host = host_after(first, host_with(replace(CARD, memory=4096)))
    assert kind(run("gpu", host, first, ollama={"models": ["llama3.1"]})) == "int8_float16"


@pytest.mark.sample(1)
@pytest.mark.parametrize("empty", [REMOTE, CLUSTER], ids=["remote", "member"])
@pytest.mark.parametrize(
    ("mib", "chosen"),
    # What fits is kept, though beside Ollama a card with 8 GB gets int8_float16 at first.
    [(8188, "float16"), (4096, "int8_float16")],
)
def test_a_card_of_which_the_memory_is_known_later_changes_it_once_at_most(
    empty: Live, mib: int, chosen: str, tmp_path: Path
) -> None:
    member = {"member": "node3"} if empty.members else {}
    settings: dict[str, Any] = {"infra": infra_with(tmp_path, **member), "ollama": {"models": []}}

    def told(program: Program) -> Live:
        """The host, with what the machine tells of its card."""
        done = cluster_after(program) if empty.members else host_after(program, empty)
        row = f"0000{CARD.pci}, {CARD.name}, {mib}, 8.9, 560.35.03\n"
        state = replace(done.machines[GPU_SERVER], cards=row)
        return replace(done, machines={**done.machines, GPU_SERVER: state})

    first = run("gpu", empty, **settings)
    second = run("gpu", told(first), first, **settings)
    assert (kind(first), kind(second)) == ("float16", chosen)
    assert (SERVICE in second.changes(first)) == (chosen != "float16")
    third = up_while_stopped(told(second), second, **settings)
    assert kind(third) == chosen and SERVICE not in third.changes(second)
    assert f"stt:quantization auto keeps {chosen}, which the service has" in "\n".join(third.log)
    assert not run("gpu", told(third), third, **settings).changes(third)


@pytest.mark.sample(1)
@pytest.mark.parametrize("engine", ["speaches", "faster-whisper", "custom"])
def test_the_type_of_every_engine_is_found(engine: str, tmp_path: Path) -> None:
    unit = "[Service]\nUser=stt\nEnvironmentFile=/etc/incus-stt/custom.env\nExecStart=/bin/true\n"
    (tmp_path / "file").write_text(unit)
    own = {name: str(tmp_path / "file") for name in ("install", "unit")}
    settings: dict[str, Any] = {"engine": engine}
    if engine == "custom":
        settings |= {"custom": own, "model": "mine"}
    first = run("gpu", SILENT, quantization="int8_float16", **settings)
    again = run("gpu", host_after(first, SILENT), first, quantization="auto", **settings)
    assert kind(again) == "int8_float16" and not again.changes(first)


def test_the_type_is_kept_where_the_host_cannot_be_read() -> None:
    first = run("gpu", host_with(replace(CARD, memory=6144)))
    assert kind(first) == "int8_float16"
    assert kind(run("gpu", HostError("no host"), first, preview=True)) == "int8_float16"


def test_only_what_runs_on_this_card_is_kept(tmp_path: Path) -> None:
    """Not what the card cannot run, nor what a CPU had, nor another host."""
    first = run("gpu", SILENT)
    old = host_with(replace(CARD, memory=None, capability=(6, 1)))
    assert kind(run("gpu", host_after(first, old), first)) == "int8_float32"
    on_a_cpu = infra_with(tmp_path, gpu=False, profiles=["default"])
    before = run("gpu", SILENT, infra=on_a_cpu)
    assert kind(before) == "int8"
    assert kind(run("gpu", host_after(before, SILENT), before)) == "float16"
    small = run("gpu", host_with(replace(CARD, memory=6144)))
    assert kind(run("gpu", REMOTE, small, connection="incus:another")) == "float16"
