"""NVIDIA Parakeet TDT behind this project's own server, by onnx-asr (docs/decisions/0008)."""

from engines.engine import Engine
from engines.hub import hub_artifacts
from engines.parakeet.models import MODELS
from engines.parakeet.service import service

ENGINE = Engine(
    name="parakeet",
    description="NVIDIA Parakeet by onnx-asr, behind this project's own server",
    strengths="very fast, on CPUs too; punctuation",
    limitations="no translation, no language setting, no prompt; v2 knows only English, v3 (the "
    "default) 25 European languages",
    license="MIT; weights CC-BY-4.0",
    restart="0.4 to 0.8 s",
    # Its files are float32, or int8 for CPUs: ONNX Runtime has no CUDA kernels for these.
    compute_types={"cuda": ("float32",), "cpu": ("int8", "float32")},
    service=service,
    sources=("models",),
    default_models=dict.fromkeys(("cuda", "cpu"), "parakeet-tdt-0.6b-v3"),
    models=MODELS,
    model_file="vocab.txt",
    client_keys=True,
    limits=True,
    repositories=True,
    artifacts=hub_artifacts(
        [model.id for model in MODELS.values()],
        "CC-BY-4.0",
        ["config.json", "vocab.txt", "encoder-model*.onnx*", "decoder_joint-model*.onnx*"],
    ),
    language=False,
)
