"""What an engine brings to the role ``stt_server``: steps, and the service that they end in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agent.kinds.service import Service
from agent.kinds.transcription import Evidence
from agent.kinds.upload import Upload
from agent.kinds.user import Directory
from declaration.settings import Settings
from declaration.source_files import digest
from declaration.step import Step
from declaration.urls import stt_base_url
from engines.model_ref import ModelRef

#: Name of the STT service in its machine, whichever engine runs.
SERVICE = "stt_server"
#: The socket unit that holds its port, whichever engine runs.
SOCKET = "stt"
USER, UID, HOME = "stt", 901, "/var/lib/stt"
VOLUME = "/srv/models"
MODELS = f"{VOLUME}/stt"
ETC = "/etc/incus-stt/stt_server"
#: The key as a file of its own, as a header for curl, and as an environment file for systemd.
KEY, AUTHORIZATION, KEY_ENVIRONMENT = f"{ETC}/api-key", f"{ETC}/authorization", f"{ETC}/api-key.env"
#: The keys of single clients by their names, as JSON: there if there are any.
CLIENT_KEYS = f"{ETC}/client-keys.json"
#: OpenAI's name of a model, for clients with a fixed one: every engine answers to it.
MODEL_ALIAS = "whisper-1"


def header_file(settings: Settings) -> str:
    """The file with the key as a header for curl; empty: none is asked for."""
    return AUTHORIZATION if settings.asks_key else ""


#: How the variables end by which a unit says what its model runs on: every engine that can use a
#: card has both, with the values that it got (``EngineContext``), and no others that end so.
_DEVICE, _COMPUTE_TYPE = "_DEVICE", "_COMPUTE_TYPE"


def runs_on(variables: Mapping[str, str]) -> tuple[str, str]:
    """The device and the compute type of a unit with these variables; empty where it has none.

    So an `up` whose card cannot be read keeps the compute type that the state has.
    """
    found = {
        end: value
        for name, value in variables.items()
        for end in (_DEVICE, _COMPUTE_TYPE)
        if name.endswith(end)
    }
    return found.get(_DEVICE, ""), found.get(_COMPUTE_TYPE, "")


@dataclass(frozen=True)
class EngineContext:
    """What an engine works with.

    ``device`` is ``cuda`` or ``cpu``; ``part`` gives the full name of a step in the machine; ``uv``
    are the steps after which uv can be used.
    """

    settings: Settings
    device: str
    model: ModelRef
    compute_type: str
    ctranslate2: bool
    part: Callable[[str], str]
    uv: Sequence[str] = ()

    def name(self, step: str) -> str:
        """The full name of a step of the STT service."""
        return self.part(f"{SERVICE}/{step}")

    @property
    def aliases(self) -> list[str]:
        """What clients may call the model, beside its name."""
        return [*self.model.other_names, MODEL_ALIAS]

    @property
    def user_step(self) -> str:
        """The step that makes the service's user and its directories."""
        return self.name("user")

    @property
    def key_file(self) -> str:
        """The file with the key that clients must send; empty: none is asked for."""
        return KEY if self.settings.asks_key else ""

    @property
    def client_keys_file(self) -> str:
        """The file with the keys of single clients, if there are any; empty: none is asked."""
        return CLIENT_KEYS if self.settings.asks_key else ""

    @property
    def check_type(self) -> str:
        """The compute type with which a new model is loaded once, on the CPU."""
        on_gpu = self.ctranslate2 and self.device == "cuda"
        return "int8" if on_gpu else self.compute_type

    @property
    def base_url(self) -> str:
        """The service's address inside its own machine."""
        return stt_base_url(self.settings)

    def upload(
        self,
        step: str,
        source: str,
        destination: str,
        *,
        subdirectory: str = "",
        model: bool = False,
    ) -> Step:
        """A step that brings a local file or directory; a ``model`` is the service's own."""
        spec = Upload(
            destination,
            directory=Path(source).is_dir(),
            subdirectory=subdirectory,
            owner=f"{USER}:{USER}" if model else "root:root",
            keep=model,
        )
        needs = [self.user_step] if model else []
        return Step(self.name(step), spec, needs, source=source)

    def bring(self, name: str, source: str) -> tuple[str, list[Step]]:
        """Where the machine finds an artifact: a URL as it is, a local file after its step."""
        if not source or "://" in source or not Path(source).exists():
            return source, []
        destination = f"/opt/incus-stt/sources/{name}-{digest(Path(source))}"
        return destination, [self.upload(f"source-{name}", source, destination)]


@dataclass(frozen=True)
class EngineService:
    """An engine's steps and its service.

    ``needs`` are the steps that the service needs; ``directories`` are the user's, beside its home;
    ``models`` are the paths on the volume that are in use; ``evidence`` tells what the model runs
    on.
    """

    steps: Sequence[Step]
    service: Service
    needs: Sequence[str]
    evidence: Evidence = field(default_factory=Evidence)
    directories: Sequence[Directory] = field(default_factory=list)
    models: Sequence[str] = ()
