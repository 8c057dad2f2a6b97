"""The whole declaration: settings and topology, checked alone and against each other."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from declaration.engines import ENGINE_FACTS
from declaration.infra import load_infra
from declaration.problems import DeclarationError, Problem, show, suggest
from declaration.settings import (
    AUTO,
    Settings,
    conflicting_settings,
    model_problems,
    parse_settings,
)
from declaration.topology import MachinePlan, Topology, plan_topology

STT_ROLE, WEBUI_ROLE, OLLAMA_ROLE = "stt_server", "open_webui", "ollama_server"


@dataclass(frozen=True)
class Declaration:
    """What is to be."""

    settings: Settings
    topology: Topology


def device_of(settings: Settings, machine: MachinePlan) -> str:
    """Where the STT engine runs in a machine: ``cuda`` or ``cpu``.

    The engines have no AMD support in the packages that are installed; Ollama has.
    """
    nvidia = machine.machine.gpu and machine.gpu_vendor == "nvidia"
    return "cuda" if nvidia and "cuda" in ENGINE_FACTS[settings.engine].devices else "cpu"


def declare(values: Mapping[str, Any], roles: Collection[str], root: Path) -> Declaration:
    """Read and check everything; ``root`` is the directory that ``stt:infra`` is relative to.

    Raises:
        DeclarationError: with every problem of the settings and of the topology.
    """
    problems: list[Problem] = []
    settings: Settings | None = None
    topology: Topology | None = None
    try:
        settings = parse_settings(values)
        problems += conflicting_settings(settings)
    except DeclarationError as error:
        problems += error.problems
    file = (
        settings.infra if settings else values.get("infra", Settings.model_fields["infra"].default)
    )
    if isinstance(file, str) and file:
        try:
            topology = plan_topology(load_infra(root / file, file), roles, file)
        except DeclarationError as error:
            problems += error.problems
    if settings and settings.engine not in ENGINE_FACTS:
        problems.append(_unknown_engine(settings.engine))
        raise DeclarationError(problems)
    if settings and topology:
        settings = with_default_model(settings, topology)
        problems += _settings_without_effect(settings, topology)
    if settings and settings.model:
        problems += model_problems(settings)
    if problems or settings is None or topology is None:
        raise DeclarationError(problems)
    return Declaration(settings, topology)


def _unknown_engine(engine: str) -> Problem:
    allowed = f"{suggest(engine, ENGINE_FACTS)} Allowed: {', '.join(ENGINE_FACTS)}."
    return Problem(
        "stt:engine", f"{show(engine)} is not allowed: there is no such engine.{allowed}"
    )


def with_default_model(settings: Settings, topology: Topology) -> Settings:
    """The settings with the engine's own model where ``stt:model`` names none."""
    machine = topology.having(STT_ROLE)
    device = device_of(settings, machine) if machine else "cpu"
    default = ENGINE_FACTS[settings.engine].default_models.get(device, "")
    return settings.model_copy(update={"model": settings.model or default})


def _settings_without_effect(settings: Settings, topology: Topology) -> list[Problem]:
    """Settings that this topology cannot carry out."""
    problems: list[Problem] = []
    webuis = [machine.name for machine in topology.machines if WEBUI_ROLE in machine.roles]
    if len(webuis) > 1 and settings.webui.publish:
        problems.append(
            Problem(
                "stt:webui.publish",
                f'"{settings.webui.publish}" is one address, and {len(webuis)} machines have the '
                f'role {WEBUI_ROLE}: {", ".join(webuis)}. Set it to "", and give each machine a '
                "proxy device of its own in the topology.",
            )
        )
    machine = topology.having(STT_ROLE)
    if machine is None:
        return problems
    if not settings.model:
        message = f"is empty, and {settings.engine} has no default. Name its model."
        problems.append(Problem("stt:model", message))
    device = device_of(settings, machine)
    allowed = ENGINE_FACTS[settings.engine].compute_types[device]
    if settings.quantization not in (*allowed, AUTO):
        if device == "cuda":
            where = "a GPU"
        elif machine.machine.gpu:
            where = f"a CPU, and {settings.engine} cannot use the GPU of {machine.name}"
        else:
            where = f"a CPU, and {machine.name} has no GPU"
        problems.append(
            Problem(
                "stt:quantization",
                f"{show(settings.quantization)} does not run on {where}. With {settings.engine} "
                f"allowed: {AUTO}, {', '.join(allowed)}.",
            )
        )
    others = ("0.0.0.0", "127.0.0.1", str(machine.address))  # noqa: S104  # compared, not bound
    if str(settings.host) not in others:
        problems.append(
            Problem(
                "stt:host",
                f'"{settings.host}" is no address of {machine.name}. Allowed: {", ".join(others)}.',
            )
        )
    return problems
