"""Settings that are each allowed, checked against the topology and the engine. Pure."""

from __future__ import annotations

from declaration.languages import LANGUAGES
from declaration.problems import Problem, show, suggest
from declaration.settings import AUTO, Settings
from declaration.topology import MachinePlan, Topology
from engines import ENGINES, Engine
from engines.model_ref import ModelRef

STT_ROLE, WEBUI_ROLE, OLLAMA_ROLE = "stt_server", "open_webui", "ollama_server"
GATEWAY_ROLE, BASE_ROLE = "stt_gateway", "base_system"


def device_of(engine: Engine, machine: MachinePlan | None) -> str:
    """Where an engine runs in a machine: ``cuda`` or ``cpu``.

    The engines have no AMD support in the packages that are installed; Ollama does.
    """
    nvidia = machine is not None and machine.machine.gpu and machine.gpu_vendor == "nvidia"
    return "cuda" if nvidia and "cuda" in engine.devices else "cpu"


def unknown_engine(name: str) -> Problem:
    """There is no engine of this name."""
    return Problem(
        "stt:engine",
        f"{show(name)} is not allowed: there is no such engine.{suggest(name, ENGINES)} "
        f"Allowed: {', '.join(ENGINES)}.",
    )


def topology_conflicts(settings: Settings, topology: Topology) -> list[Problem]:
    """Settings that this topology cannot carry out."""
    problems: list[Problem] = []
    webuis = [machine.name for machine in topology.with_role(WEBUI_ROLE)]
    if len(webuis) > 1 and settings.webui.publish:
        problems.append(
            Problem(
                "stt:webui.publish",
                f'"{settings.webui.publish}" is one address, and {len(webuis)} machines have the '
                f'role {WEBUI_ROLE}: {", ".join(webuis)}. Set it to "", and give each machine a '
                "proxy device of its own in the topology.",
            )
        )
    servers = topology.with_role(STT_ROLE)
    # The address of one machine is none of another's.
    addresses = [str(machine.address) for machine in servers] if len(servers) == 1 else []
    allowed = ["0.0.0.0", "127.0.0.1", *addresses]  # noqa: S104  # compared, not bound
    host = str(settings.host)
    if not servers:
        return problems
    asks = settings.host.is_loopback and settings.enabled and settings.webui.stt_url is None
    asking = [
        (each, server)
        for each in (topology.with_role(WEBUI_ROLE) if asks else [])
        if not topology.nearest(GATEWAY_ROLE, each)
        and (server := topology.nearest(STT_ROLE, each))
        and server != each
    ]
    for webui, server in asking:
        problems.append(
            Problem(
                "stt:host",
                f'"{host}" is reached only inside {server.name}, and Open WebUI on {webui.name} '
                f"asks from there. Use {' or '.join([allowed[0], *addresses])}, or name another "
                "service in stt:webui.stt_url.",
            )
        )
    if not asking and host not in allowed:
        names = " and of ".join(machine.name for machine in servers)
        message = f'"{host}" is not an address of {names}. Allowed: {", ".join(allowed)}.'
        problems.append(Problem("stt:host", message))
    return problems


def engine_conflicts(
    settings: Settings, engine: Engine, machine: MachinePlan, model: str
) -> list[Problem]:
    """Settings that the engine cannot carry out in its machine; ``model`` is the model's name."""
    problems: list[Problem] = []
    if not model:
        message = f"is empty, and {engine.name} has no default. Name its model."
        problems.append(Problem("stt:model", message))
    if settings.clients and settings.asks_key and not engine.client_keys:
        able = ", ".join(each.name for each in ENGINES.values() if each.client_keys)
        problems.append(
            Problem(
                "stt:clients",
                f"has {', '.join(settings.clients)}, and the engine {engine.name} knows one key "
                f"only. Remove the setting, or choose an engine that knows more: {able}.",
            )
        )
    device = device_of(engine, machine)
    if device not in engine.compute_types:
        why = f"runs only on an NVIDIA GPU, and {machine.name} has none"
        message = f"{show(engine.name)} {why}. Choose another engine, or give the machine a GPU."
        return [*problems, Problem("stt:engine", message)]
    allowed = engine.compute_types[device]
    kinds = {kind for each in engine.compute_types.values() for kind in each}
    if settings.quantization not in (*kinds, AUTO):
        problems.append(
            Problem(
                "stt:quantization",
                f"{show(settings.quantization)} is not a compute type of {engine.name}. Allowed: "
                f"{AUTO}, {', '.join(allowed)}.",
            )
        )
    elif settings.quantization not in (*allowed, AUTO):
        if device == "cuda":
            where = "a GPU"
        elif machine.machine.gpu:
            where = f"a CPU, and {engine.name} cannot use the GPU of {machine.name}"
        else:
            where = f"a CPU, and {machine.name} has no GPU"
        problems.append(
            Problem(
                "stt:quantization",
                f"{show(settings.quantization)} does not run on {where}. With {engine.name} "
                f"allowed: {AUTO}, {', '.join(allowed)}.",
            )
        )
    return problems


def model_conflicts(settings: Settings, engine: Engine, model: ModelRef) -> list[Problem]:
    """A directory without a model, or a language that the model does not know."""
    problems: list[Problem] = []
    if model.directory and not (model.found and model.found.complete):
        problems.append(
            Problem(
                "stt:model",
                f"is the directory {show(model.directory)}, which contains no {engine.model_file}. "
                f"Name a directory with a model for {engine.name}.",
            )
        )
    language = settings.language
    known = model.known.languages if model.known else LANGUAGES
    if language and language not in known:
        which = "only English" if known == {"en"} else ", ".join(sorted(known))
        problems.append(
            Problem(
                "stt:language",
                f"is {show(language)}, but the model {model.name} knows {which}. Choose another "
                "model, or another language.",
            )
        )
    elif language and not engine.language and known != {language}:
        problems.append(
            Problem(
                "stt:language",
                f"is {show(language)}, and {engine.name} cannot be told a language: its model "
                "decides. Leave it empty, or choose another engine.",
            )
        )
    return problems
