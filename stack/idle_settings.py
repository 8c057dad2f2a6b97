"""Settings that are set, and have no effect in this stack: the operator is told. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from ipaddress import IPv4Address
from typing import Any

from declaration.describe import describe
from declaration.problems import Problem
from declaration.settings import Settings, Sources
from stack.checks import GATEWAY_ROLE, OLLAMA_ROLE, STT_ROLE, WEBUI_ROLE
from stack.declare import Declaration
from stack.role_rules import RoleRules

#: Why a setting has no effect; empty where it has one.
Rule = Callable[[Declaration], str]


def _without(role: str) -> Rule:
    def rule(declaration: Declaration) -> str:
        there = declaration.topology.with_role(role)
        return "" if there else f"no machine has the role {role}"

    return rule


def _disabled(declaration: Declaration) -> str:
    return "" if declaration.settings.enabled else "stt:enabled is false"


def _stt(declaration: Declaration) -> str:
    return _without(STT_ROLE)(declaration) or _disabled(declaration)


def _unless_elsewhere(rule: Rule) -> Rule:
    """The same, but it has an effect where Open WebUI uses, and tries, an STT service elsewhere."""

    def narrower(declaration: Declaration) -> str:
        settings = declaration.settings
        elsewhere = settings.enabled and settings.webui.stt_url
        used = elsewhere and declaration.topology.with_role(WEBUI_ROLE)
        return "" if used else rule(declaration)

    return narrower


def _source(name: str) -> Rule:
    def rule(declaration: Declaration) -> str:
        if why := _disabled(declaration):
            return why
        if name in declaration.engine.sources:
            return ""
        return f"the engine {declaration.engine.name} takes nothing from there"

    return rule


def _models(declaration: Declaration) -> str:
    if any(service.model.directory for service in declaration.services):
        return "stt:model is a directory"
    return _source("models")(declaration)


def _limits(declaration: Declaration) -> str:
    if declaration.topology.with_role(GATEWAY_ROLE):
        return ""  # it has them, whatever is behind it
    if declaration.engine.limits:
        return _stt(declaration)
    return f"the engine {declaration.engine.name} has no such limits"


def _custom(declaration: Declaration) -> str:
    return "" if declaration.settings.engine == "custom" else "it is of the engine custom"


def _names(declaration: Declaration) -> str:
    return "" if declaration.settings.webui.tls != "none" else "stt:webui.tls is none"


def _gateway_names(declaration: Declaration) -> str:
    if why := _without(GATEWAY_ROLE)(declaration):
        return why
    return "" if declaration.settings.gateway.secure else "stt:gateway.tls is none"


def _stt_key(declaration: Declaration) -> str:
    return "" if declaration.settings.webui.stt_url else "stt:webui.stt_url names no other service"


def _api_key(declaration: Declaration) -> str:
    return "" if declaration.settings.asks_key else "stt:authentication is none"


def _force(declaration: Declaration) -> str:
    on_card = any(service.device == "cuda" for service in declaration.services)
    return "" if on_card else "there is no card to plan for"


def _schedule(roles: Mapping[str, RoleRules]) -> Rule:
    def rule(declaration: Declaration) -> str:
        used = [role for machine in declaration.topology.machines for role in machine.roles]
        return "" if any(roles[role].data for role in used) else "no volume holds data"

    return rule


def _expiry(declaration: Declaration) -> str:
    return "" if declaration.settings.snapshots.schedule else "stt:snapshots.schedule is empty"


def _ai_access(declaration: Declaration) -> str:
    exclusive = declaration.topology.ai_access == "exclusive"
    return "" if exclusive else "global.ai_access of the topology is open"


#: The settings that may be without effect, by key or group; the more special one counts.
RULES: dict[str, Rule] = {
    **dict.fromkeys(["enabled", "authentication"], _without(STT_ROLE)),
    **dict.fromkeys(["language", "check"], _unless_elsewhere(_without(STT_ROLE))),
    **dict.fromkeys(["engine", "model", "quantization", "host", "port", "keepAlive"], _stt),
    "check.words": _unless_elsewhere(_stt),
    "apiKey": _api_key,
    "clients": _api_key,
    "limits": _limits,
    "force": _force,
    "ollama": _without(OLLAMA_ROLE),
    "webui": _without(WEBUI_ROLE),
    "adminPassword": _without(WEBUI_ROLE),
    "gateway": _without(GATEWAY_ROLE),
    "webui.names": _names,
    "gateway.names": _gateway_names,
    "webui.sttKey": _stt_key,
    "snapshots.expiry": _expiry,
    "aiAccess": _ai_access,
    "custom": _custom,
    **{f"sources.{name}": _source(name) for name in Sources.model_fields},
    "sources.ollama": _without(OLLAMA_ROLE),
    "sources.models": _models,
}


def idle_settings(declaration: Declaration, roles: Mapping[str, RoleRules]) -> list[Problem]:
    """Every setting that is not at its default and changes nothing, with the reason.

    ``roles`` are the known roles by name.
    """
    rules = {**RULES, "snapshots.schedule": _schedule(roles)}
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
