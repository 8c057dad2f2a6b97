"""Real Ollama, where an archive with it is at hand, as its clients meet it by its API.

``STT_TEST_OLLAMA`` names the archive, which holds bin/ollama.
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any

import pytest

from tests.e2e.project import ROOT, Project, request

#: The archive; empty: there is none.
OLLAMA = os.environ.get("STT_TEST_OLLAMA", "")
#: A model of half a megabyte whose text is gibberish.
TINY_LLM = ROOT.parent / "shared" / "tiny-ollama" / "tiny.gguf"

needs_ollama = pytest.mark.skipif(not OLLAMA, reason="STT_TEST_OLLAMA names no archive")


def ask(project: Project, path: str, method: str = "GET", body: Any = None) -> Any:
    """What Ollama answers; ``body`` goes as JSON, or as it is where it is bytes."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    answer = request(f"{project.outputs()['ollama_url']}{path}", data=data, method=method)
    assert answer.status in (200, 201), answer.body
    return answer.json if answer.body else None


def make_tiny_llm(project: Project) -> None:
    """The tiny model, ``tiny``, made by the API."""
    if not TINY_LLM.exists():
        pytest.skip("no tiny GGUF model is at hand")
    content = TINY_LLM.read_bytes()
    blob = f"sha256:{hashlib.sha256(content).hexdigest()}"
    place = f"/api/blobs/{blob}"
    # Where it is there, Ollama answers before it has read the whole.
    if request(f"{project.outputs()['ollama_url']}{place}", method="HEAD").status == 404:
        ask(project, place, "POST", content)
    options = {"num_thread": 1, "num_predict": 12}
    files = {"tiny.gguf": blob}
    made = {"model": "tiny", "files": files, "parameters": options, "stream": False}
    ask(project, "/api/create", "POST", made)


def chat(project: Project, model: str) -> None:
    """Have a model answer; it stays loaded."""
    question = {"model": model, "prompt": "x", "stream": False, "keep_alive": "10m"}
    assert ask(project, "/api/generate", "POST", question)["done"] is True


def loaded(project: Project) -> list[str]:
    """The models that are loaded."""
    return [model["name"] for model in ask(project, "/api/ps")["models"]]


def has(project: Project) -> set[str]:
    """The models that are there."""
    return {model["name"] for model in ask(project, "/api/tags")["models"]}
