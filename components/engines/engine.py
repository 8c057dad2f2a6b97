"""What an engine is: how one STT server is installed, configured, and known to be healthy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from components.service import ServiceArgs
from declaration.settings import Settings
from engines.engine import Engine as EngineSpec
from engines.models import ModelRef

#: Name of the STT service in its machine, whichever engine runs.
SERVICE = "stt_server"
USER, UID, HOME = "stt", 901, "/var/lib/stt"
VOLUME = "/srv/models"
ETC = "/etc/incus-stt/stt_server"
#: The key as a file of its own, as a header for curl, and as an environment file for systemd.
KEY, AUTHORIZATION, KEY_ENVIRONMENT = f"{ETC}/api-key", f"{ETC}/authorization", f"{ETC}/api-key.env"


@dataclass(frozen=True)
class EngineContext:
    """What an engine works with. ``digests`` gives the content digest of a local path."""

    settings: Settings
    engine: EngineSpec
    device: str
    model: ModelRef
    compute_type: str
    digest: Callable[[str], str]

    @property
    def check_type(self) -> str:
        """The compute type with which a new model is loaded once, on the CPU."""
        whisper = self.engine.ctranslate2 is not None
        return "int8" if whisper and self.device == "cuda" else self.compute_type

    @property
    def health_host(self) -> str:
        """Where the service answers inside its own machine."""
        host = str(self.settings.host)
        return "127.0.0.1" if host == "0.0.0.0" else host  # noqa: S104  # compared, not bound


Engine = Callable[[EngineContext], ServiceArgs]
