"""An engine of the operator's own: an install script and a systemd unit, named in the stack."""

from engines.ctranslate2 import COMPUTE_TYPES
from engines.custom.service import service
from engines.engine import Engine

ENGINE = Engine(
    name="custom",
    description="A server of your own: an install script and a systemd unit (stt:custom)",
    compute_types=COMPUTE_TYPES,
    service=service,
    repositories=True,
    free_names=True,
)
