"""What runs in each machine: services, versions, key, verification, certificates."""

from __future__ import annotations

import calendar
import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from declaration.gateway import Gateway
from declaration.topology import MachinePlan
from declaration.webui import Webui
from doctor.case import Case
from doctor.check import machine_check
from doctor.finding import Finding, broken, doubtful, good
from doctor.room import SOON, lasts
from operations.status import age
from stack.checks import STT_ROLE

#: Seconds before its end from which Caddy should have renewed a certificate of its own: it lasts
#: twelve hours, and is renewed when a third of that is left.
_RENEWED = 2 * 3600


@machine_check
def services(case: Case, plan: MachinePlan) -> Iterator[Finding]:
    """Whether each service runs and answers, how often systemd had to help, and on what it runs."""
    said = case.examined(plan)
    there: Mapping[str, Any] = said.get("services", {})
    for step, spec in case.services(plan).items():
        if step not in there:
            todo = f"{case.make('up')} installs it"
            yield doubtful(f"{plan.name} {spec.unit}", "not installed yet", todo)
    for step, each in there.items():
        yield _service(case, plan, step, each, bool(said.get("healthy", {}).get(step)))


def _service(
    case: Case, plan: MachinePlan, step: str, each: Mapping[str, Any], healthy: bool
) -> Finding:
    unit = str(each["unit"]).removesuffix(".service")
    subject, state = f"{plan.name} {unit}", str(each["state"])
    journal = case.into(plan, f"journalctl -u {unit} -n 50")
    error = f"; last error: {each['last_error']}" if each.get("last_error") else ""
    if state in ("activating", "reloading"):
        return doubtful(subject, f"is starting{error}", f"wait, then: {journal}")
    if state != "active":
        todo = f"{case.make('up')} starts it; why: {journal}"
        return broken(subject, f"does not run: {state}{error}", todo)
    if not healthy:
        todo = f"{journal}; then {case.make('up')}, or restart it"
        return broken(subject, f"runs, but does not answer on port {each['port']}{error}", todo)
    model = f", {each['model']}" if each.get("model") else ""
    kind = f" in {each['compute_type']}" if each.get("compute_type") else ""
    device = each.get("device") or ""
    shown = f"{model}{kind}{f' on {device}' if device else ''}"
    if device == "cpu" and step.startswith(f"{STT_ROLE}/") and _declared(case, plan) == "cuda":
        todo = f"{case.into(plan, 'nvidia-smi')}; docs/troubleshooting.md, The GPU is not used"
        return broken(subject, f"runs on the CPU, although a card is declared{error}", todo)
    if each.get("restarts"):
        count = "once" if each["restarts"] == 1 else f"{each['restarts']} times"
        times = f"systemd has started it again {count}"
        return doubtful(subject, f"answers{shown}; {times}{error}", f"why: {journal}")
    since = f" for {age(each['seconds'])}" if each.get("seconds") is not None else ""
    return good(subject, f"answers{since}{shown}")


def _declared(case: Case, plan: MachinePlan) -> str:
    """The device that the STT service of a machine is declared for."""
    found = (each.device for each in case.declaration.services if each.machine == plan)
    return next(found, "")


@machine_check
def versions(case: Case, plan: MachinePlan) -> Iterator[Finding]:
    """Whether the installed programs are those that this checkout pins."""
    there: Mapping[str, Any] = case.examined(plan).get("programs", {})
    pinned = case.programs(plan)
    other = [
        f"{there[step]['description']} (this checkout has {program.description})"
        for step, program in pinned.items()
        if step in there and there[step]["directory"] != program.directory
    ]
    missing = [each.description for step, each in pinned.items() if step not in there]
    subject = f"{plan.name} versions"
    if other or missing:
        parts = [f"differs: {', '.join(other)}"] if other else []
        parts += [f"not there: {', '.join(missing)}"] if missing else []
        yield doubtful(subject, "; ".join(parts), f"{case.make('up')} installs them")
    elif pinned:
        found = ", ".join(each.description for each in pinned.values())
        yield good(subject, f"as pinned: {found}")


@machine_check
def keys(case: Case, plan: MachinePlan) -> Iterator[Finding]:
    """Whether the STT service takes the machine's key, and refuses those who have none."""
    for each in case.examined(plan).get("keys", {}).values():
        subject = f"{plan.name} key"
        if url := each.get("elsewhere"):
            yield _key_elsewhere(case, subject, url, int(each["with"]))
        else:
            yield _key(case, subject, each)


def _is_own(case: Case, url: str) -> bool:
    """Whether it is a server of this stack that is published between members of a cluster."""
    netloc = urlsplit(url).netloc
    return any(urlsplit(each.url).netloc == netloc for each in case.declaration.topology.links)


def _key_elsewhere(case: Case, subject: str, url: str, status: int) -> Finding:
    """Of a server of ``stt:gateway.servers``: whether it takes this stack's key."""
    subject += f" at {urlsplit(url).netloc}"
    if not case.declaration.settings.asks_key:
        return good(subject, "none is asked for: stt:authentication is none")
    if not status:
        todo = f"see there; {case.make('status')} has what the gateway makes of it"
        return doubtful(subject, "not tried: the server does not answer", todo)
    if status in (401, 403):
        todo = f"set stt:apiKey to one value in both stacks, and {case.make('up')} in both"
        if _is_own(case, url):
            todo = f"{case.make('up')} gives the server its key"
        return broken(subject, f"the server refuses this stack's key ({status})", todo)
    return good(subject, f"taken ({status})")


def _key(case: Case, subject: str, each: Mapping[str, Any]) -> Finding:
    asks, up = case.declaration.settings.asks_key, case.make("up")
    with_, without = int(each["with"]), int(each["without"])
    if asks != each["asked"]:
        said = "one is declared, and none is asked for" if asks else "still asked for"
        return doubtful(subject, f"{said} (stt:authentication)", f"{up} applies it")
    if not asks:
        return good(subject, "none is asked for: stt:authentication is none")
    if changed := each["changed"]:
        todo = f"{up} brings the stack's key back"
        return broken(subject, f"not as it was applied: {'; '.join(changed)}", todo)
    if not with_ or not without:
        return doubtful(subject, "not tried: the service does not answer", "see its line above")
    if with_ in (401, 403):
        todo = f"restart the service, or: {up}"
        return broken(subject, f"the service refuses the machine's key ({with_})", todo)
    # An engine of the operator's own may list its models to everybody.
    if without not in (401, 403) and each["engine"] != "custom":
        todo = f"{case.make('drift')} names what was changed; {up} puts it back"
        return broken(subject, f"the service answers without a key too ({without})", todo)
    return good(subject, f"taken ({with_}); without it: {without}")


@machine_check
def verification(case: Case, plan: MachinePlan) -> Iterator[Finding]:
    """What the last verification said, and whether the service is still the one it was about."""
    said = case.examined(plan)
    steps = [step.part for step in case.steps(plan) if step.part.endswith("/verify")]
    for step in steps:
        role = step.partition("/")[0]
        subject = f"{plan.name} verification"
        found = said.get("verified", {}).get(step)
        if not found:
            yield doubtful(subject, f"{role} was never verified", f"{case.make('up')} does it")
            continue
        when, applied = str(found["at"]), str(said.get("applied", {}).get(f"{role}/service", ""))
        told = f"{role} passed {_ago(when, case.facts.ended)}"
        if "text" in found:
            rate = found.get("word_error_rate")
            proof = f"word error rate {rate}" if rate is not None else "any words would do"
            told += f': "{str(found["text"])[:60]}", {proof}, {found.get("seconds")} s'
        if applied > when:
            todo = f"{case.make('up')} verifies it"
            yield doubtful(subject, f"{told}; the service was changed after that", todo)
        else:
            yield good(subject, told)


def _ago(when: str, now: float) -> str:
    """How long ago a time of a record is."""
    try:
        then = calendar.timegm(time.strptime(when[:19], "%Y-%m-%dT%H:%M:%S"))
    except ValueError:
        return "at an unknown time"
    return f"{age(max(0, round(now - then)))} ago"


@machine_check
def certificates(case: Case, plan: MachinePlan) -> Iterator[Finding]:
    """How long the certificates last that browsers and clients see."""
    said, settings = case.examined(plan), case.declaration.settings
    for step, end in said.get("certificates", {}).items():
        unit = str(said["services"][step]["unit"]).removesuffix(".service")
        what, now = f"that of {unit}", case.facts.ended
        gateway = step.startswith("stt_gateway/")
        own: Webui | Gateway = settings.gateway if gateway else settings.webui
        if own.tls == "files":
            todo, soon = f"put a new one into {own.certificate}, then: {case.make('up')}", SOON
        elif gateway:
            look = case.into(plan, "journalctl -u stt-gateway-watcher")
            todo, soon = f"the gateway renews it by itself; why not: {look}", SOON
        else:
            look = case.into(plan, f"journalctl -u {unit}")
            todo, soon = f"Caddy renews it by itself; why not: {look}", _RENEWED
        yield lasts(f"{plan.name} certificate", what, end, now, todo, soon)
