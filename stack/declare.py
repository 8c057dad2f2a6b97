"""The declaration of a stack: the place where settings, topology and engine come together.

It is above ``declaration`` and ``engines``, so that neither has to know the other. What the disk
has (the topology file, a directory with a model) is read here, once; everything after that works on
values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from declaration.infra import load_infra
from declaration.problems import DeclarationError, Problem
from declaration.settings import Settings, conflicting_settings, parse_settings
from declaration.topology import MachinePlan, Topology, plan_topology
from engines import ENGINES, Engine
from engines.model_ref import ModelDirectory, ModelRef
from engines.models import resolve_model
from stack.checks import (
    STT_ROLE,
    device_of,
    engine_conflicts,
    model_conflicts,
    topology_conflicts,
    unknown_engine,
)
from stack.role_rules import RoleRules, role_conflicts


@dataclass(frozen=True)
class Declaration:
    """What the operator wants, complete and checked.

    ``model`` is the engine's default where ``stt:model`` is empty. ``compute_type`` is the value of
    ``stt:quantization``, and ``auto`` until the planner has chosen (``with_compute_type``).
    """

    settings: Settings
    topology: Topology
    engine: Engine
    model: ModelRef
    compute_type: str

    @property
    def stt_machine(self) -> MachinePlan | None:
        """The machine with the STT service, if there is one."""
        return self.topology.having(STT_ROLE)

    @property
    def device(self) -> str:
        """Where the STT engine runs: ``cuda`` or ``cpu``."""
        return self.device_of(self.stt_machine)

    def device_of(self, machine: MachinePlan | None) -> str:
        """Where the STT engine runs, or would run, in a machine: ``cuda`` or ``cpu``."""
        return device_of(self.engine, machine)

    def with_compute_type(self, compute_type: str) -> Declaration:
        """The same with the compute type that the planner has chosen."""
        return replace(self, compute_type=compute_type)


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
    model = ModelRef("")
    try:
        settings = parse_settings(values)
        problems += conflicting_settings(settings)
    except DeclarationError as error:
        problems += error.problems
    default = Settings.model_fields["infra"].default
    file = settings.infra if settings else values.get("infra", default)
    if isinstance(file, str) and file:
        try:
            topology = plan_topology(load_infra(root / file, file), roles, file)
        except DeclarationError as error:
            problems += error.problems
    if settings and topology:
        problems += topology_conflicts(settings, topology)
        problems += role_conflicts(settings, topology, roles)
    if settings:
        engine = ENGINES.get(settings.engine)
        if engine is None:
            problems.append(unknown_engine(settings.engine))
        else:
            model, found = _model(settings, topology, engine)
            problems += found
    if problems or settings is None or topology is None or engine is None:
        raise DeclarationError(problems)
    return Declaration(settings, topology, engine, model, settings.quantization)


def _model(
    settings: Settings, topology: Topology | None, engine: Engine
) -> tuple[ModelRef, list[Problem]]:
    """The model of a stack, and what is wrong with it and with the engine's settings."""
    problems: list[Problem] = []
    name = settings.model
    if topology:
        machine = topology.having(STT_ROLE)
        name = name or engine.default_models.get(device_of(engine, machine), "")
        if machine:
            problems += engine_conflicts(settings, engine, machine, name)
    if not name:
        return ModelRef(""), problems
    try:
        model = resolve_model(name, engine, read_directory(name, engine))
    except ValueError as error:
        return ModelRef(""), [*problems, Problem("stt:model", f"{error}.")]
    return model, [*problems, *model_conflicts(settings, engine, model)]


def read_directory(name: str, engine: Engine) -> ModelDirectory | None:
    """What the disk has under a model's name; None where it is not a directory.

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
