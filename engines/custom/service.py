"""An engine of the operator's own: an install script and a systemd unit, named in the stack.

Settings reach it as variables in ``/etc/incus-stt/custom.env``; what it does with them shows in the
verification, which is the same for every engine.
"""

from __future__ import annotations

from pathlib import Path

from agent.http import HealthRequest
from agent.kinds.run import Run
from agent.kinds.service import Service
from declaration.custom import ENVIRONMENT_FILE
from declaration.source_files import digest
from declaration.step import Step
from engines.service import MODEL_ALIAS, MODELS, EngineContext, EngineService

_DEADLINE = 600


def service(context: EngineContext) -> EngineService:
    """The steps and the service."""
    settings, own = context.settings, context.settings.custom
    steps: list[Step] = []
    files = ""
    if own.files:
        files = f"/opt/incus-stt/custom-{digest(Path(own.files))}"
        steps.append(context.upload("engine-files", own.files, files))
    variables = {
        "STT_HOST": str(settings.host),
        "STT_PORT": str(settings.port),
        "STT_MODEL": context.model.name,
        "STT_MODEL_ALIAS": MODEL_ALIAS,
        "STT_DEVICE": context.device,
        "STT_COMPUTE_TYPE": context.compute_type,
        "STT_LANGUAGE": settings.language,
        "STT_KEEP_ALIVE": str(settings.keep_alive),
        "STT_API_KEY_FILE": context.key_file,
        "STT_FILES": files,
        "STT_MODELS": MODELS,
    }
    install = Step(
        context.name("install"),
        Run(
            script=Path(own.install).read_text(encoding="utf-8"),
            environment=variables,
            failure=f'stt:custom.install: "{own.install}" failed (above: what it says).',
            resolution="The running service was not touched.",
            online=True,
        ),
        [*context.uv, context.user_step, *(step.name for step in steps)],
    )
    unit = Service(
        unit="custom",
        environment_file=ENVIRONMENT_FILE,
        variables=variables,
        unit_text=Path(own.unit).read_text(encoding="utf-8"),
        host=str(settings.host),
        port=settings.port,
        health=[HealthRequest(f"{context.base_url}{own.health}")],
        deadline=_DEADLINE,
    )
    return EngineService([*steps, install], unit, [install.name, context.user_step])
