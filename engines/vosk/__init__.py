"""Vosk behind this project's own server: small models, for CPUs only."""

from engines.engine import Engine
from engines.vosk.models import MODELS
from engines.vosk.service import ARTIFACTS, service

ENGINE = Engine(
    name="vosk",
    description="Vosk behind this project's own server, for small hosts",
    strengths="models of 40 MB that take 300 MB of memory, according to its makers",
    limitations="CPU only; less accurate; no punctuation; one language per model",
    license="Apache-2.0",
    restart="0.4 s",
    compute_types={"cpu": ("float32",)},
    service=service,
    sources=("vosk",),
    default_models={"cpu": "vosk-model-small-en-us-0.15"},
    models=MODELS,
    artifacts=ARTIFACTS,
    model_file="am/final.mdl",
    client_keys=True,
    limits=True,
    language=False,
)
