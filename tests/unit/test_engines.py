"""An engine is one folder: it is found, and what it says is carried through."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest

import engines
from declaration.generated import stale
from declaration.problems import DeclarationError
from declaration.settings import Quantization
from declaration.source_files import ROOT
from engines import ENGINES, document
from engines.ctranslate2 import weight_bytes
from engines.model_ref import ModelDirectory
from engines.models import resolve_model
from engines.service import runs_on
from engines.speech_model import Source
from engines.whisper_models import WHISPER_MODELS
from roles import ROLES
from stack.declare import declare
from tests.unit.values import CPU, declared, own

FOLDER = """
from engines.engine import Engine, EngineModel
from engines.whisper_models import WHISPER_MODELS

ENGINE = Engine(
    name="{name}",
    description="of the test",
    compute_types={{"cpu": ("int8",)}},
    service=lambda context: None,
    default_models={{"cpu": "tiny"}},
    models={{"tiny": EngineModel("its-tiny", WHISPER_MODELS["tiny"])}},
)
"""


def add_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, text: str) -> None:
    """A folder beside those of engines/."""
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "__init__.py").write_text(text)
    monkeypatch.setattr(engines, "__path__", [*engines.__path__, str(tmp_path)])
    monkeypatch.setattr(ENGINES, "_path", engines.__path__)
    monkeypatch.setattr(ENGINES, "_names", [])


def test_the_default_comes_first_then_the_alphabet() -> None:
    first, *others = ENGINES
    assert first == "speaches" and others == sorted(others)
    assert {"custom", "faster-whisper", "owhisper", "parakeet", "vosk"} <= set(others)


def test_a_folder_is_an_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = list(ENGINES)
    add_folder(tmp_path, monkeypatch, "found_once", FOLDER.format(name="found-once"))
    assert list(ENGINES) == [before[0], *sorted([*before[1:], "found-once"])]
    # …and nothing else has to know it.
    declaration = declare({**CPU, "engine": "found-once", "model": ""}, ROLES, ROOT)
    assert (declaration.engine.name, declaration.services[0].model.repository) == (
        "found-once",
        "its-tiny",
    )
    assert "`found-once`" in document.engines_table()


def test_a_folder_without_an_engine_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_folder(tmp_path, monkeypatch, "found_empty", "")
    with pytest.raises(ValueError, match="engines/found_empty defines no ENGINE"):
        dict(ENGINES)


def test_an_engine_has_its_folder_s_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_folder(tmp_path, monkeypatch, "found_twice", FOLDER.format(name="vosk"))
    with pytest.raises(ValueError, match="engines/found_twice: its ENGINE is called 'vosk'"):
        dict(ENGINES)


def imported(*modules: str) -> set[str]:
    """All that a fresh Python has imported after these."""
    program = f"import sys, {', '.join(modules)}; print(*sys.modules)"
    words = [sys.executable, "-c", program]
    said = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True)
    found = set(said.stdout.split())
    assert found >= set(modules)
    return found


def test_an_engine_that_is_not_used_is_not_imported() -> None:
    assert not [name for name in imported("components.program") if "vosk" in name]


def test_the_read_of_the_host_does_not_wait_for_what_comes_later() -> None:
    late = {"engines", "roles", "stack", "pydantic"}
    assert not late & imported("components.start", "components.kept_values")


def test_an_unknown_engine_is_refused_with_the_allowed_ones() -> None:
    with pytest.raises(DeclarationError) as caught:
        declared(engine="speeches", port=0)
    assert len(caught.value.problems) == 1  # stt:port; settings that cannot be read come first
    with pytest.raises(DeclarationError) as caught:
        declared(engine="speeches", host="10.9.9.9")
    engine = next(str(each) for each in caught.value.problems if each.place == "stt:engine")
    assert '"speeches" is not allowed' in engine and 'Did you mean "speaches"?' in engine
    assert f"Allowed: {', '.join(ENGINES)}." in engine
    assert any(each.place == "stt:host" for each in caught.value.problems)


def test_a_declaration_has_the_model_and_leaves_the_settings_alone() -> None:
    declaration = declared(model="", quantization="auto")
    [service], chosen = declaration.services, declaration.with_compute_types(["int8"])
    assert (declaration.settings.model, service.model.name) == ("", "small")
    assert (service.compute_type, chosen.services[0].compute_type) == ("auto", "int8")
    assert chosen.settings.quantization == "auto"
    assert service.device == "cpu"


def test_the_disk_is_read_once_where_the_declaration_is_made(tmp_path: Path) -> None:
    directory = tmp_path / "mine"
    directory.mkdir()
    (directory / "model.bin").write_bytes(b"12345")
    link = tmp_path / "link"
    link.symlink_to(directory)
    declaration = declared(model=str(link))
    (directory / "model.bin").unlink()
    model = declaration.services[0].model
    assert model.found == ModelDirectory("mine", complete=True, weights=5)
    assert (model.slug, model.weights) == ("mine", 5)
    with pytest.raises(DeclarationError, match=r"contains no model\.bin"):
        declared(model=str(link))


def test_a_name_that_is_a_directory_only_on_the_disk_is_one(monkeypatch: Any) -> None:
    speaches = ENGINES["speaches"]
    assert resolve_model("some/thing", speaches).repository == "some/thing"
    found = ModelDirectory("thing", complete=True)
    assert resolve_model("some/thing", speaches, found).directory == "some/thing"


def test_a_model_of_other_engines_is_said_to_be_theirs() -> None:
    having = [name for name, engine in ENGINES.items() if "small" in engine.models]
    assert {"speaches", "faster-whisper", "owhisper"} <= set(having)
    with pytest.raises(ValueError, match=rf"it is one of {', '.join(having)}\)"):
        resolve_model("small", ENGINES["vosk"])


@pytest.mark.parametrize("engine", ["speaches", "faster-whisper"])
def test_a_model_of_the_catalogue_has_its_short_name_and_its_id(engine: str) -> None:
    short = resolve_model("large-v3-turbo", ENGINES[engine])
    long = resolve_model("deepdml/faster-whisper-large-v3-turbo-ct2", ENGINES[engine])
    assert short.repository == long.repository == long.name
    assert short.known is long.known is not None
    assert (list(short.other_names), list(long.other_names)) == ([long.name], [short.name])
    another = resolve_model("somebody/else", ENGINES[engine])
    assert (another.known, list(another.other_names)) == (None, [])


def test_a_compute_type_can_be_named() -> None:
    names = set(get_args(Quantization))
    for engine in ENGINES.values():
        for kinds in engine.compute_types.values():
            assert set(kinds) <= names, engine.name


def test_an_engine_for_a_gpu_is_refused_where_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = FOLDER.format(name="only-gpu").replace('"cpu"', '"cuda"')
    add_folder(tmp_path, monkeypatch, "only_gpu", text)
    said = r'stt:engine: "only-gpu" runs only on an NVIDIA GPU, and gpu-server has none\.'
    with pytest.raises(DeclarationError, match=said):
        declared(engine="only-gpu", model="tiny")


LIGHT = ROOT / "tests" / "e2e" / "light_engine"
OWN = {"install": str(LIGHT / "install.sh"), "unit": str(LIGHT / "engine.service")}


@pytest.mark.parametrize("name", [name for name, each in ENGINES.items() if "cuda" in each.devices])
def test_a_unit_says_what_it_runs_on(name: str) -> None:
    """Else an `up` that cannot read the card would choose another compute type."""
    more = {"custom": OWN, "model": "mine"} if name == "custom" else {"model": ""}
    stack = declared(infra=own("infra.yml"), engine=name, quantization="auto", **more)
    for compute_type in stack.engine.compute_types["cuda"]:
        chosen = stack.with_compute_types([compute_type])
        [made] = chosen.engine_services.values()
        variables = made.service.variables
        assert runs_on(variables) == ("cuda", compute_type)
        for end in ("_DEVICE", "_COMPUTE_TYPE"):
            assert sum(each.endswith(end) for each in variables) == 1, end


def test_int8_weights_are_one_byte_whatever_computes() -> None:
    sizes = {kind: weight_bytes(kind) for kind in ENGINES["speaches"].compute_types["cuda"]}
    assert [kind for kind, size in sizes.items() if size == 1] == [
        "int8_float16",
        "int8",
        "int8_bfloat16",
        "int8_float32",
    ]
    assert (sizes["float16"], sizes["bfloat16"], sizes["float32"]) == (2, 2, 4)


# The page.


PAGE = ROOT / "docs" / "engines.md"


def test_a_changed_figure_makes_the_page_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(WHISPER_MODELS, "tiny", WHISPER_MODELS["small"])
    assert [*stale(document.parts())] == ["docs/engines.md"]


def test_the_page_has_the_document_s_models_and_types() -> None:
    text = PAGE.read_text()
    for name, accuracy in {
        "tiny": "Low",
        "base": "Fair",
        "small": "Good",
        "medium": "Very good",
        "large-v3-turbo": "Excellent",
        "large-v3": "Best",
    }.items():
        row = next(line for line in text.splitlines() if line.startswith(f"| `{name}` |"))
        assert row.endswith(f"| {accuracy} |")
    assert "| `float16` | 3.6 GiB (M) | Fast | Best |" in text
    for source in Source:
        assert source.value in text
