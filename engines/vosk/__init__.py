"""Vosk behind this project's own server: small models, for CPUs only."""

from engines.engine import Engine
from engines.vosk.models import MODELS
from engines.vosk.service import service

ENGINE = Engine(
    name="vosk",
    description="Vosk: light, CPU only, one language per model, lower accuracy",
    compute_types={"cpu": ("float32",)},
    service=service,
    default_models={"cpu": "vosk-model-small-en-us-0.15"},
    models=MODELS,
    model_file="am/final.mdl",
    language=False,
)
