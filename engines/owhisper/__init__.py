"""OWhisper's last server, behind this project's own (docs/decisions/0008)."""

from engines.engine import Engine, EngineModel
from engines.owhisper.service import ARTIFACTS, PUBLISHED, file, service
from engines.whisper_models import WHISPER_MODELS

ENGINE = Engine(
    name="owhisper",
    description="OWhisper on whisper.cpp, behind this project's own server",
    strengths="whisper.cpp's small files (q8_0)",
    limitations="CPU only; **no longer maintained**: its last server is built from source in half "
    "an hour; `faster-whisper` is the maintained way to the same models",
    license="GPL-3.0",
    compute_types={"cpu": ("int8",)},
    service=service,
    sources=("owhisper", "models"),
    default_models={"cpu": "base"},
    models={name: EngineModel(file(name), WHISPER_MODELS[name]) for name in PUBLISHED},
    model_file="model.ggml",
    artifacts=ARTIFACTS,
    client_keys=True,
    limits=True,
)
