"""What a machine may take of its host's memory, and what is said of a model on a CPU."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from declaration.memory import limit_mib
from gpu.cards import Card
from host.read import Live
from tests.unit.program import Program, host_with, run
from tests.unit.values import CARD, STACKS

GIB = 2**30


@pytest.mark.parametrize(
    ("limit", "mib"),
    [
        ("90%", 9216),
        ("150%", 10240),
        ("512MiB", 512),
        ("2GiB", 2048),
        ("2GB", 1907),
        ("1048576", 1),
        ("1048576B", 1),
        ("3 GiB", 3072),
        ("1TiB", 10240),  # no more than there is
        ("much", None),
        ("2 gib", None),
        ("", None),
    ],
)
def test_a_limit_as_incus_reads_it(limit: str, mib: int | None) -> None:
    assert limit_mib(limit, 10 * GIB) == mib


def test_a_part_of_what_is_not_known_is_not_known() -> None:
    assert limit_mib("90%", 0) is None
    assert limit_mib("2GiB", 0) == 2048


def _limits(program: Program) -> dict[str, str]:
    return {
        name.split("/")[1]: command.data["config"]["limits.memory"]
        for name, command in program.commands.items()
        if name.endswith("/instance")
    }


def _infra(directory: Path, change: Callable[[dict[str, Any]], None]) -> str:
    """A topology file like the stack cpu's, with the domain changed."""
    infra = yaml.safe_load((STACKS / "infra.cpu.yml").read_text())
    change(infra["domains"]["ai-tools"])
    (directory / "infra.yml").write_text(yaml.safe_dump(infra))
    return str(directory / "infra.yml")


def test_every_machine_has_a_limit_its_own_or_its_profile_s(tmp_path: Path) -> None:
    assert _limits(run("cpu")) == {"gpu-server": "90%", "webui": "90%"}

    def change(domain: dict[str, Any]) -> None:
        domain["profiles"] = {"small": {"config": {"limits.memory": "6GiB"}}}
        domain["machines"]["webui"]["config"] = {"limits.memory": "4GiB"}
        domain["machines"]["gpu-server"]["profiles"] = ["default", "small"]

    infra = _infra(tmp_path, change)
    assert _limits(run("cpu", infra=infra)) == {"gpu-server": "6GiB", "webui": "4GiB"}


def test_the_last_word_counts(tmp_path: Path) -> None:
    key = "limits.memory"

    def limit(profile: dict[str, str], own: dict[str, str]) -> str:
        def change(domain: dict[str, Any]) -> None:
            domain["profiles"] = {"small": {"config": profile}}
            domain["machines"]["webui"] |= {"profiles": ["default", "small"], "config": own}

        return _limits(run("cpu", infra=_infra(tmp_path, change)))["webui"]

    assert limit({}, {"limits.cpu": "2"}) == "90%"
    assert limit({key: "1GiB"}, {}) == "1GiB"
    assert limit({key: "1GiB"}, {key: "2GiB"}) == "2GiB"


def _host(gib: float, *cards: Card) -> Live:
    live = host_with(*cards)
    return replace(live, resources={**live.resources, "memory": {"total": int(gib * GIB)}})


def _said(stack: str, live: Live, **settings: Any) -> list[str]:
    log = "\n".join(run(stack, live, **settings).log)
    return re.findall(r"gpu-server: \S+ in .*", log)


def test_a_preview_says_whether_a_model_on_a_cpu_fits() -> None:
    ollama = {"models": ["llama3.2:3b"]}
    [fits] = _said("cpu", _host(16), model="small", ollama=ollama)
    assert fits == (
        "gpu-server: small in int8 takes about 1.7 GiB of memory (measured by this project "
        "(docs/measurements.md)); of Ollama llama3.2:3b about 3.0 GiB (by its name; it is not "
        "pulled yet); the machine may take 14.4 GiB (limits.memory 90%): fits"
    )
    [both] = _said("cpu", _host(4), model="small", ollama=ollama)
    assert both.endswith(
        "the machine may take 3.6 GiB (limits.memory 90%): both at once do not fit, and the kernel "
        "ends a service that takes more. Choose a smaller model, or give the machine more "
        "(limits.memory in its config)"
    )
    [neither] = _said("cpu", _host(1), model="large-v3", ollama={"models": []})
    assert "may take 0.9 GiB (limits.memory 90%): the kernel ends a service" in neither
    assert _said("cpu", host_with(), model="small") == []


def test_a_machine_s_own_limit_is_what_counts(tmp_path: Path) -> None:
    def change(domain: dict[str, Any]) -> None:
        domain["machines"]["gpu-server"]["config"] = {"limits.memory": "512MiB"}

    infra = _infra(tmp_path, change)
    [said] = _said("cpu", _host(64), model="small", infra=infra, ollama={"models": []})
    assert "the machine may take 0.5 GiB (limits.memory 512MiB): the kernel ends" in said


def test_what_ollama_has_on_a_card_takes_no_memory_of_the_machine() -> None:
    [said] = _said("gpu", _host(16, CARD), engine="vosk", ollama={"models": ["llama3.2:3b"]})
    assert said.startswith("gpu-server: vosk-model-small-en-us-0.15 in float32 takes about")
    assert "Ollama" not in said and said.endswith(": fits")
