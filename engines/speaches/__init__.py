"""The default engine: Speaches, from its tag and its own lock file."""

from engines.ctranslate2 import COMPUTE_TYPES
from engines.engine import Engine
from engines.speaches.service import ARTIFACTS, service
from engines.whisper_models import CTRANSLATE2_MODELS, DEFAULT_MODELS, WHISPER_ARTIFACTS

ENGINE = Engine(
    name="speaches",
    description="The Speaches server on faster-whisper, for NVIDIA GPUs and CPUs",
    strengths="OpenAI-compatible; batches; every Whisper model of the hub; transcripts as they "
    "come (SSE)",
    limitations="Python 3.12; a large installation, from its git repository",
    license="MIT",
    restart="2.5 to 3.0 s, most of it Speaches' own start; 4.7 to 6 s on a machine half as fast",
    remarks={
        "language": "this project's wrapper reads it: Speaches has none",
        **dict.fromkeys(
            ["limits.audioMinutes", "limits.uploadMB", "limits.waiting"], "read by the wrapper"
        ),
        "apiKey": "`API_KEY`, in a file of mode 0600",
        "clients": "read by the wrapper: Speaches knows one key",
        "authentication": "and the file with `API_KEY` is not read",
    },
    compute_types=COMPUTE_TYPES,
    service=service,
    sources=("speaches", "python", "models"),
    default_models=DEFAULT_MODELS,
    models=CTRANSLATE2_MODELS,
    model_file="model.bin",
    client_keys=True,
    limits=True,
    repositories=True,
    artifacts=[*ARTIFACTS, *WHISPER_ARTIFACTS],
    ctranslate2=(4, 5),
)
