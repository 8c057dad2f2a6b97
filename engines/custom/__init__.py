"""An engine of the operator's own: an install script and a systemd unit, named in the stack."""

from engines.ctranslate2 import COMPUTE_TYPES
from engines.custom.service import service
from engines.engine import Engine

ENGINE = Engine(
    name="custom",
    description="A server of your own, by `stt:custom`",
    strengths="your own unit and install script",
    limitations="yours",
    license="yours",
    compute_types=COMPUTE_TYPES,
    service=service,
    repositories=True,
    free_names=True,
    self_contained=True,
    holds_port=False,
)
