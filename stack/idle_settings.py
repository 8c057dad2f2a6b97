"""Settings that are set, and have no effect in this stack: the operator is told. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from ipaddress import IPv4Address
from typing import Any

from declaration.describe import describe
from declaration.problems import Problem
from declaration.settings import Settings, Sources
from stack.checks import BASE_ROLE, GATEWAY_ROLE, OLLAMA_ROLE, STT_ROLE, WEBUI_ROLE
from stack.declare import Declaration
from stack.gateway import gateway_runs
from stack.own_stt import OwnStt, own_stt
from stack.role_rules import RoleRules

#: Why a setting has no effect; empty if it has one.
Rule = Callable[[Declaration], str]


def _without(*roles: str) -> Rule:
    """There is no machine with one of these roles."""

    def rule(declaration: Declaration) -> str:
        there = any(declaration.topology.with_role(role) for role in roles)
        return "" if there else f"no machine has the role {' or '.join(roles)}"

    return rule


def _first(*rules: Rule) -> Rule:
    """What the first of these says that says something."""

    def rule(declaration: Declaration) -> str:
        return next((why for rule in rules if (why := rule(declaration))), "")

    return rule


def _unless(used: Callable[[Declaration], bool], otherwise: Rule) -> Rule:
    """What a rule says, where nothing else uses the setting."""
    return lambda declaration: "" if used(declaration) else otherwise(declaration)


def _disabled(declaration: Declaration) -> str:
    return "" if declaration.settings.enabled else "stt:enabled is false"


def _has_gateway(declaration: Declaration) -> bool:
    """Whether a gateway runs, whatever is behind it."""
    there = bool(declaration.topology.with_role(GATEWAY_ROLE))
    return there and gateway_runs(declaration.settings)


def _has_webui(declaration: Declaration) -> bool:
    return bool(declaration.topology.with_role(WEBUI_ROLE))


def _has_either(declaration: Declaration) -> bool:
    return _has_gateway(declaration) or _has_webui(declaration)


def _others_are_tried(declaration: Declaration) -> bool:
    """Whether something other than this stack's own STT servers is tried with the recording."""
    elsewhere = bool(declaration.settings.webui.stt_url)
    return _has_gateway(declaration) or (elsewhere and _has_webui(declaration))


_stt = _first(_without(STT_ROLE), _disabled)


def _enabled(declaration: Declaration) -> str:
    servers = declaration.settings.gateway.servers
    return _without(STT_ROLE, *([] if servers else [GATEWAY_ROLE]))(declaration)


def _source(name: str) -> Rule:
    def rule(declaration: Declaration) -> str:
        if name in declaration.engine.sources:
            return ""
        return f"the engine {declaration.engine.name} takes nothing from there"

    return _first(_stt, rule)


def _models(declaration: Declaration) -> str:
    if any(service.model.directory for service in declaration.services):
        return "stt:model is a directory"
    return _source("models")(declaration)


def _engine_limits(declaration: Declaration) -> str:
    if declaration.engine.limits:
        return _stt(declaration)
    return f"the engine {declaration.engine.name} has no such limits"


def _custom(declaration: Declaration) -> str:
    return "" if declaration.settings.engine == "custom" else "it applies only to the engine custom"


def _webui_names(declaration: Declaration) -> str:
    return "" if declaration.settings.webui.tls != "none" else "stt:webui.tls is none"


def _gateway(declaration: Declaration) -> str:
    if gateway_runs(declaration.settings):
        return ""
    return "stt:enabled is false, and stt:gateway.servers is empty"


def _gateway_names(declaration: Declaration) -> str:
    return "" if declaration.settings.gateway.secure else "stt:gateway.tls is none"


def _own_services(declaration: Declaration) -> list[OwnStt | None]:
    """The STT service of this stack that each Open WebUI finds at ``stt:webui.stt_url``."""
    settings, topology = declaration.settings, declaration.topology
    url = settings.webui.stt_url or ""
    return [own_stt(settings, topology, url, each) for each in topology.with_role(WEBUI_ROLE)]


def _serves(declaration: Declaration, role: str) -> bool:
    """Whether an Open WebUI has a machine with a role in its domain, on whatever member."""
    topology = declaration.topology
    return any(
        topology.with_role_in_parts(role, webui.domain) for webui in topology.with_role(WEBUI_ROLE)
    )


def _stt_url(declaration: Declaration) -> str:
    url = declaration.settings.webui.stt_url
    own = _own_services(declaration)
    if url and all(each and not each.runs for each in own):
        return "it names a service of this stack, and stt:enabled is false"
    served = (declaration.settings.enabled and _serves(declaration, STT_ROLE)) or (
        _has_gateway(declaration) and _serves(declaration, GATEWAY_ROLE)
    )
    return "" if url or served else "Open WebUI has no STT service without it"


def _ollama_url(declaration: Declaration) -> str:
    named = declaration.settings.webui.ollama_url
    served = _serves(declaration, OLLAMA_ROLE)
    return "" if named or served else "Open WebUI has no Ollama without it"


def _stt_key(declaration: Declaration) -> str:
    if declaration.settings.webui.stt_url and not all(_own_services(declaration)):
        return ""
    return "stt:webui.stt_url names no other service"


def _asks_key(declaration: Declaration) -> str:
    return "" if declaration.settings.asks_key else "stt:authentication is none"


def _force(declaration: Declaration) -> str:
    on_card = any(service.device == "cuda" for service in declaration.services)
    return "" if on_card else "there is no card to plan for"


def _volumes(roles: Mapping[str, RoleRules]) -> Rule:
    return lambda declaration: (
        "" if any(roles[role].volumes for role in _used(declaration)) else "there is no volume"
    )


def _schedule(roles: Mapping[str, RoleRules]) -> Rule:
    return lambda declaration: (
        "" if any(roles[role].data for role in _used(declaration)) else "no volume holds data"
    )


def _used(declaration: Declaration) -> Iterator[str]:
    """The roles of the machines."""
    return (role for machine in declaration.topology.machines for role in machine.roles)


def _expiry(declaration: Declaration) -> str:
    return "" if declaration.settings.snapshots.schedule else "stt:snapshots.schedule is empty"


def _ai_access(declaration: Declaration) -> str:
    exclusive = declaration.topology.ai_access == "exclusive"
    return "" if exclusive else "global.ai_access of the topology is open"


#: The settings that may be without effect, by key or group; the more special one counts.
RULES: dict[str, Rule] = {
    **dict.fromkeys(["model", "quantization", "host", "port", "keepAlive"], _stt),
    "enabled": _enabled,
    "engine": _unless(_has_gateway, _stt),
    "language": _unless(_has_webui, _stt),
    "check.recording": _unless(_has_either, _stt),
    "check.words": _unless(_others_are_tried, _stt),
    "authentication": _without(STT_ROLE, GATEWAY_ROLE, WEBUI_ROLE),
    "apiKey": _first(_without(STT_ROLE, GATEWAY_ROLE, WEBUI_ROLE), _asks_key),
    "clients": _first(_without(STT_ROLE, GATEWAY_ROLE), _asks_key),
    "limits": _unless(_has_gateway, _engine_limits),
    "limits.audioMinutes": _engine_limits,
    "force": _first(_stt, _force),
    "custom": _first(_custom, _stt),
    "caBundle": _without(BASE_ROLE),
    "ollama": _without(OLLAMA_ROLE),
    "webui": _without(WEBUI_ROLE),
    "webui.names": _first(_without(WEBUI_ROLE), _webui_names),
    "webui.ollama_url": _first(_without(WEBUI_ROLE), _ollama_url),
    "webui.stt_url": _first(_without(WEBUI_ROLE), _stt_url),
    "webui.sttKey": _first(_without(WEBUI_ROLE), _stt_key),
    "adminPassword": _without(WEBUI_ROLE),
    "gateway": _first(_without(GATEWAY_ROLE), _gateway),
    "gateway.names": _first(_without(GATEWAY_ROLE), _gateway, _gateway_names),
    "aiAccess": _ai_access,
    **{f"sources.{name}": _source(name) for name in Sources.model_fields},
    "sources.ollama": _without(OLLAMA_ROLE),
    "sources.models": _models,
}


def idle_settings(declaration: Declaration, roles: Mapping[str, RoleRules]) -> list[Problem]:
    """Every setting that is not at its default and changes nothing, with the reason.

    ``roles`` are the known roles by name.
    """
    rules = {
        **RULES,
        "keepModels": _volumes(roles),
        "snapshots.schedule": _schedule(roles),
        "snapshots.expiry": _first(_schedule(roles), _expiry),
    }
    problems: list[Problem] = []
    for each in describe(Settings):
        if each.group or _value(declaration.settings, each.key) == each.default:
            continue
        rule = rules.get(each.key) or rules.get(each.key.partition(".")[0])
        if rule and (why := rule(declaration)):
            problems.append(Problem(f"stt:{each.key}", f"has no effect: {why}."))
    return problems


def _value(settings: Settings, key: str) -> Any:
    found: Any = settings
    for part in key.split("."):
        found = getattr(found, part)
    return str(found) if isinstance(found, IPv4Address) else found
