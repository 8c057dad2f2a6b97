"""What an STT engine is, as far as a configuration has to know it. Data only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from declaration.artifacts import Artifact
from engines.service import MODEL_ALIAS, EngineContext, EngineService
from engines.speech_model import SpeechModel

__all__ = ["MODEL_ALIAS", "Engine", "EngineModel"]


@dataclass(frozen=True)
class EngineModel:
    """A model as one engine runs it.

    ``id`` is the engine's own name for it: a Hugging Face id, or a file at the engine's source.
    """

    id: str
    spec: SpeechModel


@dataclass(frozen=True, kw_only=True)
class Engine:
    """An STT engine. Each folder of ``engines/`` defines one as ``ENGINE``.

    Attributes:
        name: The value of ``stt:engine``.
        description: One plain line for the documentation.
        strengths: What speaks for it, for the documentation; Markdown.
        limitations: What speaks against it, for the documentation; Markdown.
        license: The licences of its program and of its models, for the documentation.
        restart: How long requests wait while it restarts, with the smallest model on two CPU
            cores; empty: that was not measured.
        holds_port: Whether systemd holds its port while it restarts; else requests are refused.
        remarks: What docs/settings.md says beside the variables that a setting becomes, by the
            setting; Markdown.
        compute_types: The compute types by device (``cuda``, ``cpu``), the best first. The engine
            does not run on a device that is missing here.
        service: How it is installed and configured: its steps, and the service they end in. If it
            can use a card, its unit says by two variables what it runs on, ``…_DEVICE`` and
            ``…_COMPUTE_TYPE``, whatever stands before: ``engines.service.runs_on`` reads them.
        default_models: The model by device where ``stt:model`` is empty; empty: there is none.
        models: The known models by short name, from the smallest to the largest.
        model_file: The file that a directory with a model of the operator's must contain; empty:
            directories are not supported.
        repositories: Whether any Hugging Face id is a model.
        free_names: Whether any name is a model, because only the operator knows what it means.
        sources: The keys of ``stt:sources`` that its program and its models come from.
        self_contained: Whether its own installation brings all it needs: no packages, no uv.
        language: Whether a default language can be set; otherwise the model decides.
        artifacts: What its installation fetches that no pip lock names, models included.
        client_keys: Whether it knows keys of single clients (``stt:clients``).
        limits: Whether its server has the limits of ``stt:limits``.
        ctranslate2: The pinned version of CTranslate2 (major, minor); None: it is not used.
    """

    name: str
    description: str
    compute_types: Mapping[str, tuple[str, ...]]
    service: Callable[[EngineContext], EngineService]
    default_models: Mapping[str, str] = field(default_factory=dict)
    models: Mapping[str, EngineModel] = field(default_factory=dict)
    model_file: str = ""
    repositories: bool = False
    free_names: bool = False
    sources: tuple[str, ...] = ()
    self_contained: bool = False
    language: bool = True
    client_keys: bool = False
    limits: bool = False
    ctranslate2: tuple[int, int] | None = None
    strengths: str = ""
    limitations: str = ""
    license: str = ""
    restart: str = ""
    holds_port: bool = True
    remarks: Mapping[str, str] = field(default_factory=dict)
    artifacts: Sequence[Artifact] = ()

    @property
    def devices(self) -> tuple[str, ...]:
        """``cuda`` and ``cpu``, or one of them."""
        return tuple(self.compute_types)
