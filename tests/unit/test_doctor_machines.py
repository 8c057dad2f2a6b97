"""What `make doctor` says of machines and of what runs in them, one line for each."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from declaration.topology import Link
from doctor.__main__ import findings
from doctor.case import Answer, Case
from doctor.checks.services import certificates
from doctor.finding import Mark
from tests.unit.doctor_case import NOW, answer, good_case, instance, one, saying, within
from tests.unit.values import PEM, declared

SERVER, WEBUI = "ai-tools/gpu-server", "ai-tools/webui"
STT, VERIFY = "stt_server/service", "stt_server/verify"
LATER = "2027-01-14T09:00:00+00:00"
OLD_AGENT = "agent examine gpu-server.incus: not known. Known: check, status."
HOURS, DAYS = 3600, 86400


def _instances(**changes: Any) -> Case:
    case = good_case()
    plans = [{**instance(plan), **changes} for plan in case.machines if plan.name == "gpu-server"]
    return good_case(instances=plans)


@pytest.mark.parametrize(
    ("case", "mark", "said"),
    [
        (_instances(status="Stopped"), Mark.BROKEN, "does not run: stopped -> make up STACK=cpu"),
        (_instances(status="Frozen"), Mark.BROKEN, "frozen"),
        (
            _instances(config={"user.incus-stt.owner": "stt/gpu/id"}),
            Mark.BROKEN,
            "belongs to the stack gpu of the project stt -> look at it as STACK=gpu",
        ),
        (
            replace(_instances(), identity="of-this-one"),
            Mark.BROKEN,
            "belongs to the stack cpu of the project stt with the id id, which another checkout "
            "has built -> this checkout's has the id of-this-one: look at it there; docs/tro",
        ),
        (replace(_instances(), identity="id"), Mark.GOOD, "runs, 10.120.0.1"),
        (saying(good_case(), SERVER, OLD_AGENT), Mark.DOUBTFUL, "of another"),
        (
            saying(good_case(), SERVER, "python3: can't open file '/opt/incus-stt/agent'"),
            Mark.BROKEN,
            "has no agent",
        ),
        (saying(good_case(), SERVER, "it said nothing"), Mark.BROKEN, "does not answer: it said"),
        (
            within(good_case(), SERVER, "unfinished", value=["stt_server/model"]),
            Mark.BROKEN,
            "cut off (or still works) at stt_server/model -> make up",
        ),
    ],
)
def test_a_machine(case: Case, mark: Mark, said: str) -> None:
    found = one(case, "gpu-server")
    assert found.mark is mark and said in f"{found.found} -> {found.next}"


def test_who_updates_otherwise_is_not_told_when() -> None:
    case = within(good_case(declared(updates="off")), SERVER, "updates", "asked", value=0)
    assert one(case, "gpu-server updates").mark is Mark.GOOD
    case = within(case, SERVER, "updates", "packages", value=["openssl"])
    assert "1 security update is waiting: openssl" in one(case, "gpu-server updates").found
    # apt does not say.
    case = within(case, SERVER, "updates", value={})
    assert not [each for each in findings(case) if each.subject == "gpu-server updates"]


def test_a_machine_that_is_silent_has_no_more_lines() -> None:
    case = saying(good_case(), SERVER, "it said nothing")
    assert not any(each.subject.startswith("gpu-server ") for each in findings(case))
    assert any(each.subject == "webui DNS" for each in findings(case))


SERVICE = ("services", STT)
KEY = ("keys", VERIFY)
DISK = {"path": "/srv/models", "size": 1 << 40, "free": 1 << 40, "inodes": 0.5}
MACHINE_LINES: list[tuple[tuple[str, ...], Any, str, Mark, str]] = [
    ((*SERVICE, "state"), "failed", "speaches", Mark.BROKEN, "does not run: failed"),
    ((*SERVICE, "state"), "activating", "speaches", Mark.DOUBTFUL, "is starting"),
    (("healthy", STT), False, "speaches", Mark.BROKEN, "does not answer on port 8000"),
    ((*SERVICE, "restarts"), 3, "speaches", Mark.DOUBTFUL, "started it again 3 times"),
    (("services",), {}, "speaches", Mark.DOUBTFUL, "not installed yet"),
    (("programs", "base_system/uv"), {"directory": "/x", "description": "uv 0.1"}, "versions",
     Mark.DOUBTFUL, "differs: uv 0.1 (this checkout has uv "),
    (("updates", "packages"), list("abcdefg"), "updates", Mark.DOUBTFUL,
     "7 security updates are waiting: a, b, c, d, e and 2 more; asked 1 s ago"),
    (("updates", "asked"), NOW - 9 * DAYS, "updates", Mark.DOUBTFUL,
     "asked 9 d 0 h ago, and stt:updates is weekly"),
    (("updates", "asked"), 0, "updates", Mark.DOUBTFUL, "never asked, and stt:updates is weekly"),
    (("updates", "asked"), NOW - 7 * DAYS, "updates", Mark.GOOD, "no security updates are waiting"),
    (("programs",), {}, "versions", Mark.DOUBTFUL, "not there: uv "),
    ((*KEY, "with"), 401, "key", Mark.BROKEN, "refuses the machine's key (401)"),
    ((*KEY, "without"), 200, "key", Mark.BROKEN, "answers without a key too (200)"),
    ((*KEY, "without"), 0, "key", Mark.DOUBTFUL, "not tried"),
    ((*KEY, "changed"), ["/k: (another"], "key", Mark.BROKEN, "as it was applied: /k: (another"),
    ((*KEY, "asked"), False, "key", Mark.DOUBTFUL, "one is declared, and none is asked for"),
    (("verified",), {}, "verification", Mark.DOUBTFUL, "stt_server was never verified"),
    (("verified", VERIFY, "text"), "one", "verification", Mark.GOOD, '"one", any words would do'),
    (("applied", STT), LATER, "verification", Mark.DOUBTFUL, "was changed after that"),
    (("names", "webui.incus"), [], "DNS", Mark.BROKEN, "webui.incus is not known, not 10.120.0.2"),
    (("names", "webui"), ["10.9.9.9"], "DNS", Mark.BROKEN, "webui is 10.9.9.9, not 10.120.0.2"),
    (("outside", "reached"), True, "DNS", Mark.DOUBTFUL, "way out is open, with egress: install"),
    (("outside",), {}, "DNS", Mark.GOOD, "knows gpu-server.incus, webui, webui.incus; the way out"),
    (("disks",), [{**DISK, "free": 1 << 20}], "disk", Mark.BROKEN, "0.0 of 1024.0 GiB free on"),
    (("disks",), [{**DISK, "free": 2 << 30}], "disk", Mark.DOUBTFUL, "2.0 of"),
    (("disks",), [{**DISK, "inodes": 0.001}], "disk", Mark.BROKEN, "no inodes"),
    (("time",), NOW + 90, "clock", Mark.BROKEN, "88 s away from its host's"),
    (("certificates", STT), NOW + 5 * HOURS, "certificate", Mark.GOOD, "lasts 5 hours"),
    (("certificates", STT), NOW + HOURS, "certificate", Mark.DOUBTFUL, "expires in 1 hours"),
    (("certificates", STT), NOW - DAYS, "certificate", Mark.BROKEN, "has expired on 2027-01-14"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value", "subject", "mark", "said"), MACHINE_LINES)
def test_what_is_in_a_machine(
    path: tuple[str, ...], value: Any, subject: str, mark: Mark, said: str
) -> None:
    case = within(good_case(), SERVER, *path, value=value)
    found = [each for each in findings(case) if each.subject == f"gpu-server {subject}"]
    worse = [each for each in found if each.next]
    shown = worse or [each for each in found if said in each.found]
    assert len(shown) == 1, found
    assert shown[0].mark is mark and said in shown[0].found
    others = {each.subject for each in findings(case) if each.next} - {f"gpu-server {subject}"}
    assert path in (("services",), ("programs",), ("verified",)) or not others


def test_a_neighbour_that_does_not_run_is_not_looked_up() -> None:
    case = within(good_case(), SERVER, "names", value={"gpu-server.incus": ["10.120.0.1"]})
    assert one(case, "gpu-server DNS").mark is Mark.BROKEN
    plans = {plan.name: instance(plan) for plan in case.machines}
    stopped = [plans["gpu-server"], {**plans["webui"], "status": "Stopped"}]
    answers = {**case.facts.answers, "instances": answer(stopped)}
    case = replace(case, facts=replace(case.facts, answers=answers))
    assert one(case, "gpu-server DNS").found == "knows gpu-server.incus; the way out is closed"


@pytest.mark.parametrize(
    ("addresses", "reached", "mark", "said"),
    [
        (["192.0.2.1"], True, Mark.GOOD, "webui.incus and deb.example, which answers"),
        (["192.0.2.1"], False, Mark.DOUBTFUL, "does not answer"),
        ([], False, Mark.DOUBTFUL, "and not deb.example"),
    ],
)
def test_what_an_open_domain_reaches(
    addresses: list[str], reached: bool, mark: Mark, said: str
) -> None:
    outside = {"name": "deb.example", "addresses": addresses, "reached": reached}
    case = within(good_case(), SERVER, "outside", value=outside)
    topology = case.declaration.topology
    (domain,) = topology.domains
    domain = replace(domain, domain=domain.domain.model_copy(update={"egress": "open"}))
    topology = replace(topology, domains=(domain,))
    case = replace(case, declaration=replace(case.declaration, topology=topology))
    finding = one(case, "gpu-server DNS")
    assert finding.mark is mark and said in finding.found


def test_an_engine_of_ones_own_may_list_its_models_to_everybody() -> None:
    case = within(good_case(), SERVER, *KEY, value={
        "asked": True, "engine": "custom", "with": 404, "without": 200, "changed": [],
    })  # fmt: skip
    assert one(case, "gpu-server key").mark is Mark.GOOD


@pytest.mark.parametrize(
    ("status", "mark", "said"),
    [
        (200, Mark.GOOD, "taken (200)"),
        (401, Mark.BROKEN, "the server refuses this stack's key (401)"),
        (0, Mark.DOUBTFUL, "not tried: the server does not answer"),
    ],
)
def test_the_key_at_a_server_elsewhere(status: int, mark: Mark, said: str) -> None:
    value = {
        **{"asked": True, "engine": "x", "with": status, "without": 0, "changed": []},
        "elsewhere": "http://192.168.1.20:8000/v1",
    }
    case = within(good_case(), SERVER, "keys", "stt_gateway/server-192.168.1.20-8000", value=value)
    finding = one(case, "gpu-server key at 192.168.1.20:8000")
    assert (finding.mark, finding.found) == (mark, said)
    assert ("stt:apiKey to one value in both stacks" in finding.next) is (status == 401)
    assert one(case, "gpu-server key").mark is Mark.GOOD


def test_the_key_at_a_server_on_another_member() -> None:
    """It is of this stack: `up` gives it the key."""
    case, url = good_case(), "http://192.168.1.12:8000/v1"
    value = {
        **{"asked": True, "engine": "x", "with": 401, "without": 0, "changed": []},
        "elsewhere": url,
    }
    case = within(case, SERVER, "keys", "stt_gateway/server-192.168.1.12-8000", value=value)
    source, address = IPv4Address("192.168.1.11"), IPv4Address("192.168.1.12")
    ends = ("ai-tools/gateway", source, "ai-tools-2/stt", "members-stt", address, 8000)
    link = Link("stt:gateway.servers", url.removesuffix("/v1"), *ends)
    topology = replace(case.declaration.topology, links=(link,))
    case = replace(case, declaration=replace(case.declaration, topology=topology))
    finding = one(case, "gpu-server key at 192.168.1.12:8000")
    assert finding.mark is Mark.BROKEN and "make up" in finding.next
    assert "stt:apiKey" not in finding.next


def test_no_key_is_asked_for() -> None:
    case = good_case(declared(authentication="none"))
    assert "still asked for" in one(case, "gpu-server key").found
    case = within(case, SERVER, *KEY, "asked", value=False)
    assert one(case, "gpu-server key").mark is Mark.GOOD


def test_an_engine_that_fell_back_to_the_cpu() -> None:
    case = good_case()
    service = replace(case.declaration.services[0], device="cuda")
    case = replace(case, declaration=replace(case.declaration, services=(service,)))
    case = within(case, SERVER, *SERVICE, "device", value="cpu")
    found = one(case, "gpu-server speaches")
    assert (
        found.mark is Mark.BROKEN and "runs on the CPU, although a card is declared" in found.found
    )


def test_a_certificate_of_the_operators_own_is_renewed_by_hand(tmp_path: Path) -> None:
    file = tmp_path / "stt.pem"
    file.write_text(PEM)
    case = good_case()
    settings = case.declaration.settings
    webui = settings.webui.model_copy(update={"tls": "files", "certificate": str(file)})
    settings = settings.model_copy(update={"webui": webui})
    case = replace(case, declaration=replace(case.declaration, settings=settings))
    step = "open_webui/service"
    found = one(
        within(case, WEBUI, "certificates", step, value=NOW + 9 * DAYS), "webui certificate"
    )
    assert found.mark is Mark.DOUBTFUL and f"put a new one into {file}" in found.next


def test_a_gateway_s_certificate_is_renewed_by_the_watcher() -> None:
    step = "stt_gateway/service"
    case = within(good_case(), WEBUI, "services", step, value={"unit": "stt-gateway.service"})
    case = within(case, WEBUI, "certificates", step, value=NOW + 9 * DAYS)
    [plan] = [each for each in case.declaration.topology.machines if each.full_name == WEBUI]
    [found] = certificates(case, plan)
    assert found.mark is Mark.DOUBTFUL and "expires in 9 days" in found.found
    assert "journalctl -u stt-gateway-watcher" in found.next


def test_a_host_whose_clock_is_wrong_and_its_machine_s_with_it() -> None:
    """The kernel's clock is one: only the host's line says it."""
    case = within(good_case(clock=str(int(NOW) + 7200)), SERVER, "time", value=NOW + 7200)
    case = within(case, WEBUI, "time", value=NOW + 7200)
    assert {each.subject for each in findings(case) if each.next} == {"clock"}


def test_a_remote_is_looked_at_by_its_api() -> None:
    asked = ("system", "user", "clock", "disks", "nft", "ip_forward", "addresses")
    missing: dict[str, Any] = dict.fromkeys(asked)
    case = good_case(declared(connection="incus:box"), **missing)
    bad = {each.subject for each in findings(case) if each.next}
    assert bad == {"host", "DNS"}
    assert "name the host with stt:connection: ssh:USER@HOST" in one(case, "DNS").next
    case = replace(case, facts=replace(case.facts, answers={
        **case.facts.answers, "instances": Answer(0, "[]")
    }))  # fmt: skip
    assert one(case, "gpu-server").mark is Mark.DOUBTFUL
