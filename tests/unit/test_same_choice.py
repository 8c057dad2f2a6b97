"""An unchanged configuration keeps its compute type, whatever answers or runs at the moment."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from host.read import Live
from tests.unit.program import Program, host_after, host_with, run
from tests.unit.values import CARD

GPU_SERVER = ("ai-tools", "gpu-server")
#: llama3.1:8b, as Ollama lists its file.
FILE = 4_920_753_328


def kind(program: Program) -> str:
    """The compute type of the STT service."""
    found: str = program.outputs["stt_quantization"]
    return found


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
