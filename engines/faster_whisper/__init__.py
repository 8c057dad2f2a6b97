"""The light engine: this project's own server on faster-whisper, from packages of PyPI only."""

from engines.ctranslate2 import COMPUTE_TYPES
from engines.engine import Engine
from engines.faster_whisper.service import service
from engines.whisper_models import CTRANSLATE2_MODELS, DEFAULT_MODELS, WHISPER_ARTIFACTS

ENGINE = Engine(
    name="faster-whisper",
    description="This project's own server on faster-whisper, for NVIDIA GPUs and CPUs",
    strengths="light (450 MB), with packages of PyPI only; refuses settings that have no effect",
    limitations="one request at a time; no batches",
    license="MIT",
    restart="0.5 s",
    compute_types=COMPUTE_TYPES,
    service=service,
    sources=("models",),
    default_models=DEFAULT_MODELS,
    models=CTRANSLATE2_MODELS,
    model_file="model.bin",
    client_keys=True,
    limits=True,
    repositories=True,
    artifacts=WHISPER_ARTIFACTS,
    ctranslate2=(4, 8),
)
