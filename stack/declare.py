"""The declaration of a stack: the place where settings, topology and engine come together.

It is above ``declaration`` and ``engines``, so that neither has to know the other. What the disk
has (the topology file, a directory with a model) is read here, once; everything after that works on
values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from declaration.environment import environment_of
from declaration.infra import load_infra
from declaration.problems import DeclarationError, Problem
from declaration.settings import Settings, conflicting_settings, parse_settings
from declaration.topology import MachinePlan, Topology, plan_topology
from engines import ENGINES, Engine
from engines.model_ref import ModelDirectory, ModelRef
from engines.models import resolve_model
from engines.service import EngineContext, EngineService
from stack.ai_access_checks import ai_access_problems
from stack.asked import own_loopbacks
from stack.checks import (
    BASE_ROLE,
    STT_ROLE,
    WEBUI_ROLE,
    device_of,
    engine_conflicts,
    model_conflicts,
    topology_conflicts,
    unknown_engine,
)
from stack.device_names import device_name_problems
from stack.gateway import gateway_problems
from stack.published import declared_hosts, port_conflicts
from stack.reach import reach_problems
from stack.replicas import different_models, replica_conflicts
from stack.role_rules import RoleRules, role_conflicts
from stack.spans import linked, span_problems, with_devices, with_urls


@dataclass(frozen=True)
class SttService:
    """The STT service of a machine.

    ``device`` is ``cuda`` or ``cpu``. ``model`` is the engine's default for it where ``stt:model``
    is empty. ``compute_type`` is the value of ``stt:quantization``, and ``auto`` until the planner
    has chosen (``Declaration.with_compute_types``).
    """

    machine: MachinePlan
    device: str
    model: ModelRef
    compute_type: str


@dataclass(frozen=True)
class Declaration:
    """What the operator wants, complete and checked.

    ``services`` has the STT service of every machine with that role, in the file's order. Where a
    domain is on several members, the settings have the URLs at which its parts reach each other,
    and the topology has the devices that publish these (``stack.spans``).
    """

    settings: Settings
    topology: Topology
    engine: Engine
    services: tuple[SttService, ...]

    def service_on(self, machine: MachinePlan) -> SttService:
        """The STT service of a machine that has one."""
        return next(each for each in self.services if each.machine == machine)

    @cached_property
    def engine_services(self) -> Mapping[str, EngineService]:
        """The engine's steps and its service, by the full name of each machine that has one."""
        return {each.machine.full_name: self._engine_service(each) for each in self.services}

    def _engine_service(self, service: SttService) -> EngineService:
        machine = service.machine
        context = EngineContext(
            self.settings,
            service.device,
            service.model,
            service.compute_type,
            self.engine.ctranslate2 is not None,
            machine.resource,
            [machine.resource(f"{BASE_ROLE}/uv")] if BASE_ROLE in machine.roles else [],
        )
        return self.engine.service(context)

    def with_compute_types(self, chosen: Sequence[str]) -> Declaration:
        """The same with the compute types that the planner has chosen, one for each service."""
        pairs = zip(self.services, chosen, strict=True)
        services = tuple(replace(each, compute_type=kind) for each, kind in pairs)
        return replace(self, services=services)


def declare(values: Mapping[str, Any], roles: Mapping[str, RoleRules], root: Path) -> Declaration:
    """Read and check everything.

    ``values`` are the settings without ``stt:``; ``roles`` are the known roles by name; ``root`` is
    the directory that ``stt:infra`` is relative to.

    Raises:
        DeclarationError: with every problem of the settings and of the topology.
    """
    problems: list[Problem] = []
    settings: Settings | None = None
    topology: Topology | None = None
    engine: Engine | None = None
    services: tuple[SttService, ...] = ()
    try:
        settings = parse_settings(values)
        problems += conflicting_settings(settings)
    except DeclarationError as error:
        problems += error.problems
    default = Settings.model_fields["infra"].default
    file = settings.infra if settings else values.get("infra", default)
    if isinstance(file, str) and file:
        try:
            infra = load_infra(root / file, file)
            environment = environment_of(settings.environment if settings else "", infra, file)
            planned = plan_topology(infra, roles, file, environment)
            if settings and planned.with_role(WEBUI_ROLE):
                settings = environment.publish(settings)
            if settings:
                planned = linked(settings, planned, file)
                problems += span_problems(settings, planned, file)
                problems += device_name_problems(settings, planned, roles, file)
                settings = with_urls(settings, planned)
                planned = with_devices(settings, planned)
            topology = planned
        except DeclarationError as error:
            problems += error.problems
    if settings and topology:
        problems += topology_conflicts(settings, topology)
        problems += own_loopbacks(settings, topology)
        problems += gateway_problems(settings, topology)
        problems += role_conflicts(settings, topology, roles)
        problems += reach_problems(settings, topology, roles, str(file))
        problems += port_conflicts(settings, topology, declared_hosts(topology), str(file))
        problems += replica_conflicts(topology)
        problems += ai_access_problems(settings, topology, str(file))
    if settings:
        engine = ENGINES.get(settings.engine)
        if engine is None:
            problems.append(unknown_engine(settings.engine))
        else:
            services, found = _services(settings, topology, engine)
            problems += found
    if problems or settings is None or topology is None or engine is None:
        raise DeclarationError(problems)
    return Declaration(settings, topology, engine, services)


def _services(
    settings: Settings, topology: Topology | None, engine: Engine
) -> tuple[tuple[SttService, ...], list[Problem]]:
    """The STT services, and what is wrong with their models and with the engine's settings."""
    problems: list[Problem] = []
    services: list[SttService] = []
    machines = topology.with_role(STT_ROLE) if topology else []
    for machine in machines:
        device = device_of(engine, machine)
        name = settings.model or engine.default_models.get(device, "")
        problems += engine_conflicts(settings, engine, machine, name)
        model, found = _model(name, settings, engine)
        problems += found
        services.append(SttService(machine, device, model, settings.quantization))
    if topology:
        models = [(each.machine, each.model.name) for each in services]
        problems += different_models(settings, topology, models)
    if not machines:
        problems += _model(settings.model, settings, engine)[1]
    # What is wrong with the stack's one model is said once.
    return tuple(services), list(dict.fromkeys(problems))


def _model(name: str, settings: Settings, engine: Engine) -> tuple[ModelRef, list[Problem]]:
    """A model by its name, and what is wrong with it."""
    if not name:
        return ModelRef(""), []
    try:
        model = resolve_model(name, engine, read_directory(name, engine))
    except ValueError as error:
        return ModelRef(""), [Problem("stt:model", f"{error}.")]
    return model, model_conflicts(settings, engine, model)


def read_directory(name: str, engine: Engine) -> ModelDirectory | None:
    """What the disk has under a model's name; None if it is not a directory.

    A relative name is relative to the directory in which Pulumi runs.
    """
    if "\0" in name or not Path(name).is_dir():
        return None
    weights = Path(name) / "model.bin"
    return ModelDirectory(
        name=Path(name).resolve().name,
        complete=bool(engine.model_file) and (Path(name) / engine.model_file).is_file(),
        weights=weights.stat().st_size if weights.is_file() else None,
    )
