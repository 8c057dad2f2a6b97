"""The role ``stt_gateway``: what it is made of, what it refuses, and what its watcher decides."""

from __future__ import annotations

import asyncio
import json
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pulumi
import pytest
import yaml

from agent.systemd import unit_text
from declaration.problems import DeclarationError
from declaration.source_files import ROOT
from roles import ROLES
from roles.stt_gateway import nginx
from roles.stt_gateway.machine import watcher
from roles.stt_gateway.machine.counts import Counts
from roles.stt_gateway.machine.health import Answer, Kind, ask
from roles.stt_gateway.machine.lists import places_conf, servers_conf
from roles.stt_gateway.machine.server_state import CUT_SECONDS, ServerState
from roles.stt_gateway.machine.settings import Server, Settings, read_settings
from roles.stt_gateway.machine.watcher import Watcher
from stack.declare import declare
from stack.idle_settings import idle_settings
from stt_server import admission, guard
from tests.hanging import hanging
from tests.unit.program import API_KEY, Program, host_after, run
from tests.unit.values import CPU

STT = ["base_system", "stt_server"]
GATEWAY = ["base_system", "stt_gateway"]
TWO: dict[str, list[str]] = {"one": STT, "two": STT, "front": GATEWAY}


def infra(root: Path, machines: dict[str, list[str]], *more: Any, ai: str = "open") -> str:
    """A topology with one domain of machines with roles, and rules."""
    domain = {
        "trust_level": "trusted",
        "machines": {name: {"roles": roles} for name, roles in machines.items()},
    }
    office = {"trust_level": "untrusted", "machines": {"desk": {"roles": ["base_system"]}}}
    options = {"ai_access": ai, **({"ai_access_default": "office"} if ai != "open" else {})}
    file = root / "infra.yml"
    data = {"global": options, "policy": list(more), "domains": {"lab": domain, "office": office}}
    file.write_text(yaml.safe_dump(data, sort_keys=False))
    return str(file)


def program(root: Path, machines: dict[str, list[str]] = TWO, **settings: Any) -> Program:
    return run("cpu", infra=infra(root, machines), **settings)


def problems(root: Path, machines: dict[str, list[str]], **settings: Any) -> list[str]:
    try:
        declare({**CPU, "infra": infra(root, machines), **settings}, ROLES, root)
    except DeclarationError as error:
        return [str(problem) for problem in error.problems]
    return []


def spec(found: Program, part: str) -> Any:
    return found.commands[f"lab/front/stt_gateway/{part}"].spec


def told(found: Program) -> Any:
    """What the watcher is told."""
    [file] = spec(found, "watcher")["files"]
    return json.loads(file["content"])


# What the settings become


def test_its_servers_are_those_of_its_domain_and_those_of_the_setting(tmp_path: Path) -> None:
    found = told(program(tmp_path, gateway={"servers": ["http://192.168.1.20:8001"]}))
    assert found["servers"] == [
        {"name": "one", "address": "10.110.0.1", "port": 8000, "health": "/health"},
        {"name": "two", "address": "10.110.0.2", "port": 8000, "health": "/health"},
        {
            "name": "192.168.1.20:8001",
            "address": "192.168.1.20",
            "port": 8001,
            "health": "/health",
        },
    ]


def test_without_a_service_of_its_own_it_has_those_of_the_setting(tmp_path: Path) -> None:
    servers = ["http://192.168.1.20"]
    found = program(tmp_path, enabled=False, gateway={"servers": servers})
    assert [each["port"] for each in told(found)["servers"]] == [80]
    assert "lab/front/stt_gateway/verify" in found.commands
    off = program(tmp_path, enabled=False)
    assert not any("/stt_gateway/service" in name for name in off.commands)
    alone = program(tmp_path, {"front": GATEWAY}, gateway={"servers": servers})
    assert spec(alone, "verify")["model"] == "whisper-1"


def test_what_settings_change(tmp_path: Path) -> None:
    limits = {"waiting": 5, "uploadMB": 70}
    found = program(tmp_path, port=8100, gateway={"port": 9000}, limits=limits)
    told_ = told(found)
    assert (told_["waiting"], told_["upload_mb"]) == (5, 70)
    assert {each["port"] for each in told_["servers"]} == {8100}
    [conf] = spec(found, "service")["files"]
    assert "listen 0.0.0.0:9000;" in conf["content"]
    assert "client_max_body_size 70m;" in conf["content"]
    assert found.outputs["stt_url"] == "http://10.110.0.3:9000/v1"
    assert found.outputs["stt_health_url"] == "http://10.110.0.3:9000/health"
    assert "10.110.0.3:9000/v1" in found.outputs["stt_curl"]
    machines = found.outputs["machines"]
    assert machines["lab/one"]["stt_url"] == "http://10.110.0.1:8100/v1"
    assert found.outputs["gateway_servers"] == {
        "one": "http://10.110.0.1:8100",
        "two": "http://10.110.0.2:8100",
    }
    assert spec(found, "verify")["url"] == "http://10.110.0.3:9000/v1"


def test_another_server_does_not_touch_nginx(tmp_path: Path) -> None:
    """Only its restart would make anybody wait."""
    before, after = (program(tmp_path, machines) for machines in (TWO, {**TWO, "three": STT}))
    assert told(before) != told(after)
    assert spec(before, "service") == spec(after, "service")


def test_keys_are_secret_and_all_of_them_are_known(tmp_path: Path) -> None:
    found = program(tmp_path, clients=["phone"])
    step = found.commands["lab/front/stt_gateway/secrets"]
    keys, header = step.spec["secrets"]
    assert f'"\\\\{API_KEY}" 1;' in keys["content"].splitlines()
    assert len(keys["content"].splitlines()) == 2
    assert keys["owner"] == "stt-gateway:stt-gateway"
    assert header["content"] == f"Authorization: Bearer {API_KEY}\n"
    assert "stdin" in step.secret_inputs
    assert step.spec.get("service", "") == "", "the watcher sees a change, and nothing restarts"


def test_without_keys_none_are_asked_for(tmp_path: Path) -> None:
    found = program(tmp_path, authentication="none")
    assert "lab/front/stt_gateway/secrets" not in found.commands
    assert "return 401;" not in spec(found, "service")["files"][0]["content"]
    assert told(found)["files"] == [] and spec(found, "verify")["header_file"] == ""


def test_its_verification_follows_that_of_its_servers(tmp_path: Path) -> None:
    found = program(tmp_path).commands["lab/front/stt_gateway/verify"]
    for server in ("one", "two"):
        assert f"lab/{server}/stt_server/verify" in found.dependencies
    assert found.spec["words"] == "one two three"


def test_a_change_of_all_servers_comes_to_the_first_one_first(tmp_path: Path) -> None:
    """Another port or key: the others serve meanwhile, and where the first goes back, all stay."""
    found = program(tmp_path, {**TWO, "webui": ["base_system", "open_webui"]}).commands
    before = {
        "lab/two/stt_server/secrets": "lab/one/stt_server/verify",
        "lab/two/stt_server/service": "lab/one/stt_server/verify",
        "lab/front/stt_gateway/watcher": "lab/one/stt_server/verify",
        "lab/front/stt_gateway/secrets": "lab/one/stt_server/verify",
        "lab/webui/open_webui/service": "lab/front/stt_gateway/service",
    }
    for later, first in before.items():
        assert first in found[later].dependencies, later
    assert "lab/two/stt_server/verify" not in found["lab/front/stt_gateway/watcher"].dependencies


def test_another_key_does_not_wait_for_servers_elsewhere(tmp_path: Path) -> None:
    """One that does not answer would keep the former key in the gateway, and it alone has it."""
    found = program(tmp_path, gateway={"servers": ["http://192.168.1.20:8001"]}).commands
    front = "lab/front/stt_gateway"
    tried = f"{front}/server-192.168.1.20-8001"
    assert tried in found[f"{front}/watcher"].dependencies
    needed, todo = set(), [f"{front}/secrets"]
    while todo:
        needed.add(name := todo.pop())
        todo += [each for each in found[name].dependencies if each in found and each not in needed]
    assert "lab/one/stt_server/verify" in needed
    assert not needed & {tried, "lab/two/stt_server/verify"}


def test_a_server_elsewhere_is_tried_before_the_watcher_has_it(tmp_path: Path) -> None:
    """Past the gateway, with this stack's key."""
    servers = ["http://192.168.1.20:8001", "http://192.168.1.21"]
    found = program(tmp_path, gateway={"servers": servers})
    tried = [f"lab/front/stt_gateway/server-192.168.1.{n}" for n in ("20-8001", "21-80")]
    for name, url in zip(tried, ("192.168.1.20:8001", "192.168.1.21:80"), strict=True):
        step = found.commands[name]
        assert step.spec["url"] == f"http://{url}/v1" and step.spec["elsewhere"] is True
        same = ("model", "recording", "words", "patience")
        assert {k: step.spec[k] for k in same} == {k: spec(found, "verify")[k] for k in same}
        # This stack's own servers have the key by then.
        assert {f"lab/{each}/stt_server/verify" for each in ("one", "two")} <= set(
            step.dependencies
        )
        assert name in found.commands["lab/front/stt_gateway/watcher"].dependencies
        [header] = found.commands["lab/front/stt_gateway/servers-key"].spec["secrets"]
        assert header["path"] == step.spec["header_file"]
        assert header["content"] == f"Authorization: Bearer {API_KEY}\n"
    assert "elsewhere" not in spec(found, "verify")
    # With HTTPS at the gateway, they are asked as before.
    secure = program(tmp_path, gateway={"servers": servers, "tls": "internal"})
    assert secure.commands[tried[0]].spec == found.commands[tried[0]].spec
    without = program(tmp_path, authentication="none", gateway={"servers": servers})
    assert without.commands[tried[0]].spec["header_file"] == ""
    assert not [name for name in program(tmp_path).commands if "/stt_gateway/server" in name]


def test_a_server_elsewhere_is_tried_again_with_another_key_only(tmp_path: Path) -> None:
    name = "lab/front/stt_gateway/server-192.168.1.20-8001"
    values: dict[str, Any] = {
        "infra": infra(tmp_path, TWO),
        "gateway": {"servers": ["http://192.168.1.20:8001"]},
    }
    first = run("cpu", **values)
    live = host_after(first)
    clients = run("cpu", live, first, **values, clients=["phone"]).changes(first)
    assert "lab/front/stt_gateway/secrets" in clients and name not in clients
    key = run("cpu", live, first, secret=True, **values, apiKey="another-key-0123456789abcdef")
    assert key.changes(first)[name] == "update"


# What is refused


def test_a_gateway_without_a_server(tmp_path: Path) -> None:
    assert problems(tmp_path, {"front": GATEWAY}) == [
        "domains.lab.machines.front.roles: stt_gateway has no server: no machine of the domain has "
        "the role stt_server. Give it to one, or name servers in stt:gateway.servers."
    ]


def test_a_server_that_only_its_machine_reaches(tmp_path: Path) -> None:
    assert problems(tmp_path, TWO, host="127.0.0.1") == [
        'stt:host: "127.0.0.1" is reached only inside one, two, and the gateway asks from front. '
        "Use 0.0.0.0."
    ]
    same = {"box": ["base_system", "stt_server", "stt_gateway"]}
    assert problems(tmp_path, same, host="127.0.0.1", gateway={"port": 8001}) == []


@pytest.mark.parametrize(
    ("url", "what"),
    [
        (
            "http://10.110.0.1:8000",
            "the STT server of lab/one, which is behind the gateway already. Remove it: it would "
            "get twice its share of the requests.",
        ),
        (
            "http://10.110.0.3:8000",
            "the gateway itself (lab/front), which would ask itself. Remove it.",
        ),
    ],
)
def test_a_server_that_is_there_already(tmp_path: Path, url: str, what: str) -> None:
    assert problems(tmp_path, TWO, gateway={"servers": [url]}) == [
        f'stt:gateway.servers: has "{url}", which is {what}'
    ]


def test_two_services_on_one_port(tmp_path: Path) -> None:
    same = {"box": ["base_system", "stt_server", "stt_gateway"]}
    [problem] = problems(tmp_path, same)
    assert problem.startswith("stt:gateway.port: takes port 8000, and so does stt:port")


@pytest.mark.parametrize(
    "url",
    [
        *("https://10.0.0.1:8000", "http://server:8000", "http://10.0.0.1:8000/v1", "10.0.0.1:80"),
        *("http://10.0.0.256", "http://10.0.0.1:70000", "http://10.0.0.1:0", "http://u@10.0.0.1"),
    ],
)
def test_what_is_no_address_of_a_server(tmp_path: Path, url: str) -> None:
    [problem] = problems(tmp_path, TWO, gateway={"servers": [url]})
    assert problem.startswith(f'stt:gateway.servers.0: "{url}" is not the address of an STT server')
    assert "such as http://192.168.1.20:8000" in problem


def test_a_server_twice(tmp_path: Path) -> None:
    twice = ["http://10.0.0.1:8000"] * 2
    [problem] = problems(tmp_path, TWO, gateway={"servers": twice})
    assert "twice" in problem
    [problem] = problems(
        tmp_path, TWO, gateway={"servers": ["http://10.0.0.1:80", "http://10.0.0.1"]}
    )
    assert 'which is the same server as "http://10.0.0.1:80". Remove one' in problem


def test_without_a_gateway_its_settings_are_idle(tmp_path: Path) -> None:
    values = {**CPU, "infra": infra(tmp_path, {"one": STT}), "gateway": {"port": 9000}}
    said = [str(problem) for problem in idle_settings(declare(values, ROLES, tmp_path), ROLES)]
    assert said == ["stt:gateway.port: has no effect: no machine has the role stt_gateway."]


# Who reaches whom


def test_its_domain_reaches_servers_outside_and_no_other_does(tmp_path: Path) -> None:
    found = program(tmp_path, gateway={"servers": ["http://192.168.1.20:8001"]})

    def ways(domain: str) -> list[str]:
        rules = found.commands[f"{domain}/acl"].data["egress"]
        return [rule["destination"] for rule in rules if "gateway" in rule["description"]]

    assert ways("lab") == ["192.168.1.20/32"] and ways("office") == []
    into = found.commands["lab/acl"].data["ingress"]
    own = [r for r in into if r["description"] == "services of front"]
    assert [(r["destination"], r["destination_port"]) for r in own] == [("10.110.0.3/32", "8000")]


def test_a_service_of_another_domain_names_no_model_of_its_servers(tmp_path: Path) -> None:
    file = Path(infra(tmp_path, {"front": GATEWAY}))
    topology = yaml.safe_load(file.read_text())
    topology["domains"]["office"]["machines"]["desk"]["roles"].append("stt_server")
    file.write_text(yaml.safe_dump(topology))
    light = ROOT / "tests" / "e2e" / "light_engine"
    found = run(
        "cpu",
        infra=str(file),
        engine="custom",
        model="mine",
        custom={"install": str(light / "install.sh"), "unit": str(light / "engine.service")},
        gateway={"servers": ["http://192.168.1.20:8001"]},
    )
    assert "model=whisper-1" in found.outputs["stt_curl"]
    assert spec(found, "verify")["model"] == "whisper-1"


def test_servers_with_an_engine_of_one_s_own_are_changed_with_a_pause(tmp_path: Path) -> None:
    """Whether it knows ``/ready`` or not; without a gateway nobody would notice anything."""
    light = ROOT / "tests" / "e2e" / "light_engine"
    custom = {"install": str(light / "install.sh"), "unit": str(light / "engine.service")}
    drains = []
    for machines in (TWO, {"one": STT}):
        found = program(tmp_path, machines, engine="custom", model="mine", custom=custom)
        drains.append(found.commands["lab/one/stt_server/service"].spec.get("drain"))
    assert drains == [{"url": "http://127.0.0.1:8000/ready"}, None]


def test_the_way_through_a_gateway_is_one_to_ai_services(tmp_path: Path) -> None:
    """With exclusive access it is held, as the way to a server is."""
    rule = {"from": "office", "to": "lab/front", "ports": [8000]}
    file = infra(tmp_path, TWO, rule, ai="exclusive")
    found = run("cpu", infra=file, aiAccess="nobody")
    assert "nobody has the AI access" in json.dumps(found.outputs["allowed_traffic"])


# What nginx is told


def test_it_says_what_the_servers_say() -> None:
    def body(status: int, message: str, param: str | None = None) -> Any:
        return json.loads(bytes(guard.error_response(status, message, param).body))

    errors = {status: json.loads(text) for status, (text, _) in nginx._errors(7).items()}
    assert errors[401] == body(401, guard.WRONG_KEY)
    assert errors[429] == body(429, admission._FULL)
    with pytest.raises(guard.RequestError) as refused:
        guard.UploadLimit(7).check({b"content-length": b"99000000"})
    assert errors[413] == body(413, refused.value.message, refused.value.param)
    assert errors[503]["error"]["type"] == body(503, "")["error"]["type"] == "server_error"
    assert str(nginx.RETRY_AFTER) == guard.RETRY_AFTER


def test_no_error_of_nginx_s_own_is_left() -> None:
    """Each status has an answer, which cannot end its own quotes."""
    text = nginx.nginx_conf(nginx.Gateway(8000, 500, "/keys"))
    for status, (body, _) in nginx._errors(500).items():
        assert "'" not in body and "$" not in body and "\\" not in body
        sent = nginx._SENT_AS.get(status, status)
        assert f"error_page {status} = " in text and f"return {sent} '{body}';" in text


SETTINGS = Settings(
    (Server("one", "10.0.0.1", 8000), Server("two", "10.0.0.2", 8000)),
    waiting=32,
    upload_mb=500,
    home=Path("/home"),
    files=(),
    port=9145,
)


def test_who_is_in_the_list() -> None:
    one, two = SETTINGS.servers
    line = "    server 10.0.0.{}:8000 max_fails=0{};"
    every = [line.format(n, " backup") for n in (1, 2)]
    for serving, first in (([one, two], [1, 2]), ([two], [2]), ([], [1, 2])):
        text = servers_conf(SETTINGS, serving).splitlines()
        servers = [each for each in text if each.startswith("    server ")]
        assert servers == [*(line.format(n, "") for n in first), *every]
    refused = servers_conf(SETTINGS, [two], [one])
    assert line.format(1, "") not in refused and line.format(1, " backup") not in refused
    assert places_conf(SETTINGS) == "limit_conn work 66;\n"


def watcher_in(home: Path) -> Watcher:
    """The gateway's watcher, which has asked nobody yet."""
    (home / "health").mkdir()
    return Watcher(replace(SETTINGS, home=home))


def refuses(watching: Watcher) -> bool:
    """Whether nginx is to refuse requests, by what the watcher writes now."""
    watching.write()
    there = {file.name for file in (watching.settings.home / "health").iterdir()}
    assert there in ({"some.json"}, {"none.json"})
    return there == {"none.json"}


def test_requests_are_not_refused_for_what_is_old_news(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One went for a change just now; the one before it may be back, and was not asked yet."""
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    watching = watcher_in(tmp_path)
    one, two = watching.states.values()
    assert refuses(watching), "none has ever answered"
    for now in (1, 2):
        one.observe(REFUSED, now)
        two.observe(GOOD, now)
        assert not refuses(watching)
    now = 3
    two.observe(REFUSED, now)
    assert not refuses(watching) and not any(state.usable for state in (one, two))
    now = 6.9
    two.observe(REFUSED, now)
    assert not refuses(watching)
    now = 7
    assert refuses(watching), "by now it would be known"
    one.observe(GOOD, now)
    assert not refuses(watching)


def test_requests_wait_for_the_last_server_while_up_changes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its port stays open; a server that does not come back is one that does not work."""
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    watching = watcher_in(tmp_path)
    one, two = watching.states.values()
    two.observe(REFUSED, now)
    for now, answer in ((1, GOOD), (2, DRAINING), (60, DRAINING), (61, SILENT), (179, SILENT)):
        one.observe(answer, now)
        assert not refuses(watching), now
    now = 180
    assert refuses(watching)


def test_the_watcher_reads_what_the_role_writes(tmp_path: Path) -> None:
    file = tmp_path / "servers.json"
    file.write_text(json.dumps(told(program(tmp_path))))
    settings = read_settings(file)
    assert [each.place for each in settings.servers] == ["10.110.0.1:8000", "10.110.0.2:8000"]
    for text in ('{"servers": []}', "[]", "{", '{"servers": [{"name": "x"}]}'):
        file.write_text(text)
        with pytest.raises(ValueError, match=r"."):
            read_settings(file)


# What the watcher decides

GOOD, REFUSED = Answer(Kind.GOOD), Answer(Kind.REFUSED, "cannot be reached")
SILENT, STALLED = Answer(Kind.SILENT, "does not answer"), Answer(Kind.STALLED, "hangs")
NOT_READY, DRAINING = Answer(Kind.NOT_READY, "answers 503"), Answer(Kind.DRAINING, "is changed")


def state(*answers: Answer) -> ServerState:
    """A server that has given these answers, one a second."""
    found = ServerState(0)
    for second, answer in enumerate(answers):
        found.observe(answer, second)
    return found


@pytest.mark.parametrize(
    ("answers", "serving"),
    [
        ([GOOD], True),
        ([REFUSED], False),
        ([GOOD, REFUSED], True),  # once may be a restart
        ([GOOD, REFUSED, GOOD, SILENT], True),
        ([GOOD, REFUSED, SILENT], False),
        ([GOOD, NOT_READY, NOT_READY], False),
        ([GOOD, DRAINING, DRAINING], False),
        ([REFUSED, GOOD], False),
        ([REFUSED, GOOD, GOOD], True),
        ([GOOD, STALLED, STALLED], False),
    ],
)
def test_one_answer_is_not_enough(answers: list[Answer], serving: bool) -> None:
    found = state(*answers)
    assert found.serving is serving
    assert bool(found.why) is not serving
    assert found.usable is (answers[-1] is GOOD)


def test_one_that_refuses_the_key_gets_nothing_however_well_it_is() -> None:
    found = state(GOOD, GOOD)
    found.take_key(False, 2)
    assert (found.serving, found.since) == (False, 2)
    assert "key" in found.why
    found.take_key(False, 3)
    found.observe(GOOD, 3)
    assert (found.since, found.to_cut(100)) == (2, False)
    found.take_key(True, 4)
    assert (found.serving, found.why, found.since) == (True, "", 4)


def test_one_that_comes_and_goes_is_left_alone_for_longer() -> None:
    fall = [REFUSED, REFUSED]
    assert state(GOOD, *fall, GOOD, GOOD).serving
    again = [GOOD, *fall, GOOD, GOOD, *fall]
    assert not state(*again, GOOD, GOOD, GOOD).serving
    assert state(*again, *[GOOD] * 4).serving
    often = [GOOD, *[*fall, *[GOOD] * 8] * 4, *fall]
    assert not state(*often, *[GOOD] * 7).serving
    assert state(*often, *[GOOD] * 8).serving, "not for ever longer"
    later = state(*again)
    for second in range(100, 102):
        later.observe(GOOD, second)
    assert later.serving, "a minute ago is long ago"


@pytest.mark.parametrize("change", [[DRAINING, REFUSED], [DRAINING, DRAINING, REFUSED, NOT_READY]])
def test_a_change_does_not_count_as_a_fall(change: list[Answer]) -> None:
    """Who changes three settings within a minute has all servers back after each at once."""
    often = [GOOD, *[*change, GOOD, GOOD] * 4]
    assert state(*often).serving
    fall = [REFUSED, REFUSED]
    assert state(*often, *fall, GOOD, GOOD).serving, "the first fall"
    assert not state(*often, *fall, GOOD, GOOD, *fall, GOOD, GOOD).serving, "the second one"


def test_connections_are_ended_where_nothing_will_come_of_them() -> None:
    late = CUT_SECONDS + 1
    for answer in (SILENT, REFUSED):
        assert not state(GOOD, answer, answer).to_cut(3)
        assert state(GOOD, answer, answer).to_cut(late)
    assert not state(GOOD, SILENT).to_cut(late), "it may answer the next time"
    assert state(GOOD, STALLED, STALLED).to_cut(3)
    for answer in (NOT_READY, DRAINING):
        assert not state(GOOD, answer, answer).to_cut(2), "it works on what it has"
        assert not state(*[answer] * 60).to_cut(60)
    assert not state(GOOD).to_cut(100)


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, "{}", Answer(Kind.GOOD)),
        (200, "no JSON", Answer(Kind.GOOD)),
        (503, '{"status": "draining", "requests": 2}', Answer(Kind.DRAINING, "is being changed")),
        (503, '{"status": "loading"}', Answer(Kind.NOT_READY, "answers 503")),
        (500, "no JSON", Answer(Kind.NOT_READY, "answers 500")),
        (
            200,
            '{"working": 601}',
            Answer(Kind.STALLED, "has worked on one part of a recording for 601 s"),
        ),
    ],
)
def test_what_a_server_says_of_itself(status: int, body: str, expected: Answer) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {status} Said\r\nServer: test\r\n\r\n{body}".encode())
        await writer.drain()
        writer.close()

    async def asked() -> Answer:
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            return await ask(Server("stt", "127.0.0.1", port))

    assert asyncio.run(asked()) == expected


def test_what_became_of_requests() -> None:
    counts = Counts(["10.0.0.1:8000", "10.0.0.2:8000"])
    for line in (
        "200|1.5|10.0.0.1:8000|200",
        "200|0.5|10.0.0.1:8000, 10.0.0.2:8000|502, 200",
        "429|0.0|-|-",
        "429|0.1|10.0.0.1:8000, 10.0.0.2:8000|429, 429",
        "502|0.1|10.0.0.1:8000, 10.0.0.2:8000|502, 503",
        "499|2.0|10.0.0.2:8000|-",
        "400|0.1|10.0.0.2:8000|400",
        "200|0.1|10.9.9.9:1|200",  # one that is not in the list any more
    ):
        counts.add(f"<190>Nov 26 22:51:15 nginx: {line}")
    counts.add("what is none")
    assert counts.data() == {
        "requests": 8,
        "retried": 3,
        "refused": 2,
        "failed": 1,
        "seconds": 4.4,
    }
    assert {place: vars(tries) for place, tries in counts.tries.items()} == {
        "10.0.0.1:8000": {"requests": 4, "failed": 2, "full": 1},
        "10.0.0.2:8000": {"requests": 5, "failed": 1, "full": 1},
    }


def test_nginx_ends_gracefully_and_its_socket_is_held(tmp_path: Path) -> None:
    found = spec(program(tmp_path), "service")
    assert found["socket"] == "stt-gateway" and found["variables"] == {"NGINX": "3;"}
    text = unit_text(found["sections"])
    stop = re.search(r"\nTimeoutStopSec=(\d+)\n", text)
    assert "\nKillSignal=SIGQUIT\n" in text and stop
    assert int(stop[1]) < found["deadline"], "its restart includes the end of the one before"


def test_a_program_with_two_gateways_is_refused(tmp_path: Path) -> None:
    machines = {**TWO, "back": GATEWAY}
    with pytest.raises(pulumi.RunError, match="would share its data"):
        program(tmp_path, machines)


def test_ss_that_hangs_is_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Else its server would be asked no more."""
    hanging(tmp_path / "ss")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(watcher, "_CUT_SECONDS", 0.2)
    began = time.monotonic()
    asyncio.run(watcher.cut(Server("a", "127.0.0.1", 9)))
    assert time.monotonic() - began < 30
    assert "ss -K did not end the connections to a in 0.2 s and was killed" in caplog.text
