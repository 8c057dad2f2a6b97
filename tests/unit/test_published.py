"""What proxy devices publish: servers that are the gateway itself or asked anyway, and ports."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pulumi
import pytest
import yaml

from declaration.problems import DeclarationError
from declaration.source_files import ROOT
from roles import ROLES
from stack.declare import declare
from stack.unencrypted import unencrypted
from tests.unit.cluster import CLUSTER
from tests.unit.program import EMPTY_HOST, run
from tests.unit.values import CPU

BASE, STT, GATEWAY = "base_system", ["base_system", "stt_server"], ["base_system", "stt_gateway"]
LISTEN = "tcp:192.168.1.11:8000"
URL = "http://192.168.1.11:8000"


def machine(roles: list[str], *listen: str, **keys: Any) -> dict[str, Any]:
    """One whose port 8000 is published there."""
    devices = {
        f"lan{number or ''}": {"type": "proxy", "listen": each, "connect": "tcp:127.0.0.1:8000"}
        for number, each in enumerate(listen)
    }
    return {"roles": roles, "devices": devices, **keys}


def written(root: Path, **domains: dict[str, Any]) -> str:
    """A topology with these domains' machines."""
    file = root / "infra.yml"
    data = {
        name: {"trust_level": "semi-trusted", "machines": each} for name, each in domains.items()
    }
    file.write_text(yaml.safe_dump({"domains": data}, sort_keys=False))
    return str(file)


def problems(infra: str, *servers: str, **settings: Any) -> list[str]:
    gateway = {"servers": list(servers), **settings.pop("gateway", {})}
    more = {"gateway": gateway} if servers else {}
    try:
        declare({**CPU, "infra": infra, **more, **settings}, ROLES, ROOT)
    except DeclarationError as error:
        return [str(each).replace(infra, "infra.yml") for each in error.problems]
    return []


# Servers that are the gateway itself


@pytest.mark.parametrize(
    "listen", [LISTEN, "tcp:192.168.1.11:7999-8001", "tcp:192.168.1.11:1,8000"]
)
def test_a_gateway_where_it_is_published(tmp_path: Path, listen: str) -> None:
    front = machine(GATEWAY, listen)
    if "," in listen or "-" in listen:
        front["devices"]["lan"]["connect"] = listen.replace("192.168.1.11", "127.0.0.1")
    infra = written(tmp_path, lab={"one": machine(STT), "front": front})
    assert problems(infra, URL, "http://192.168.1.20:8000") == [
        f'stt:gateway.servers: has "{URL}", where the device lan of lab/front publishes the '
        "gateway itself (lab/front), which would ask itself. Remove it."
    ]
    assert problems(infra, "http://192.168.1.11:8002") == []


def test_a_gateway_by_other_ways(tmp_path: Path) -> None:
    """By a device of another machine, inside its own machine, by a name, at its bridge."""
    there = machine([BASE], LISTEN)
    there["devices"]["lan"]["connect"] = "tcp:10.120.0.2:8000"
    both = [BASE, "stt_server", "stt_gateway"]
    infra = written(tmp_path, lab={"desk": there, "front": machine(GATEWAY), "one": machine(STT)})
    [said] = problems(infra, URL)
    assert "the device lan of lab/desk publishes the gateway itself (lab/front)" in said
    secure = {"tls": "internal", "names": ["192.168.1.12"]}
    [said] = problems(infra, "http://192.168.1.12:8000", gateway=secure)
    assert 'is the gateway itself ("192.168.1.12" in stt:gateway.names)' in said
    infra = written(tmp_path, lab={"front": machine(both, "tcp:0.0.0.0:8000")})
    for url in ("http://127.0.0.1:8000", "http://0.0.0.0:8000", "http://10.120.0.254:8000"):
        [said] = problems(infra, url, port=8001)
        assert "the gateway itself (lab/front)" in said
    [said] = problems(infra, "http://127.0.0.1:8001", port=8001)
    assert "the STT server of lab/front" in said


def test_a_gateway_on_every_address_of_a_host_that_was_read(tmp_path: Path) -> None:
    front = machine(GATEWAY, "tcp:0.0.0.0:8000")
    infra = written(tmp_path, lab={"one": machine(STT), "front": front})
    live = replace(EMPTY_HOST, addresses={"eth0": ["192.168.1.11/24"]})
    with pytest.raises(pulumi.RunError, match="publishes the gateway itself"):
        run("cpu", live, infra=infra, gateway={"servers": [URL]})
    assert run("cpu", live, infra=infra, gateway={"servers": ["http://192.168.1.20:8000"]}).commands


# Servers that are asked anyway


def test_a_server_of_the_domain_where_it_is_published(tmp_path: Path) -> None:
    infra = written(tmp_path, lab={"one": machine(STT, LISTEN), "front": machine(GATEWAY)})
    assert problems(infra, URL) == [
        f'stt:gateway.servers: has "{URL}", where the device lan of lab/one publishes the STT '
        "server of lab/one, which is behind the gateway already. Remove it: it would get twice its "
        "share of the requests."
    ]
    other = written(tmp_path, lab={"front": machine(GATEWAY)}, more={"one": machine(STT, LISTEN)})
    assert problems(other, URL) == []
    [said] = problems(other, URL, "http://10.120.1.1:8000")
    assert f'"http://10.120.1.1:8000", which is the same server as "{URL}". Remove one' in said
    # It is a way to something else.
    ssh = machine(STT, LISTEN)
    ssh["devices"]["lan"]["connect"] = "tcp:127.0.0.1:22"
    infra = written(tmp_path, lab={"one": ssh, "front": machine(GATEWAY)})
    assert problems(infra, URL) == []


def said_of(infra: str, url: str) -> str:
    """What the preview says of the way to a server."""
    values = {**CPU, "infra": infra, "gateway": {"servers": [url]}}
    found = declare(values, ROLES, ROOT)
    [each] = unencrypted(found.settings, found.topology)
    return str(each)


def test_who_listens_on_every_address_has_those_that_are_known(tmp_path: Path) -> None:
    """A server of somebody else's is not taken for one of this stack."""
    one = machine(STT, "tcp:0.0.0.0:8000")
    desk = machine([BASE], "tcp:192.168.1.11:22")
    lab = {"one": one, "front": machine(GATEWAY)}
    infra = written(tmp_path, lab=lab)
    foreign = "http://192.168.1.20:8000"
    assert problems(infra, foreign) == [] and problems(infra, URL) == []
    assert f"{foreign} is on another host" in said_of(infra, foreign)
    # Another device tells an address of the host.
    infra = written(tmp_path, lab={**lab, "desk": desk})
    assert "publishes the STT server of lab/one" in problems(infra, URL)[0]
    assert f"{foreign} is on another host" in said_of(infra, foreign)
    # That of another member is none.
    away = {"one": one | {"member": "node1"}, "front": machine(GATEWAY)}
    infra = written(tmp_path, lab=away, more={"desk": desk | {"member": "node2"}})
    assert problems(infra, URL) == []
    infra = written(tmp_path, lab=away, more={"desk": desk | {"member": "node1"}})
    assert "publishes the STT server of lab/one" in problems(infra, URL)[0]


def test_models_are_compared_where_it_is_known_and_changes_wait_in_any_case(tmp_path: Path) -> None:
    more = {"stt": machine(STT, "tcp:0.0.0.0:8000", member="node2")}
    lab = {"one": machine(STT, member="node1"), "front": machine(GATEWAY)}
    infra = written(tmp_path, lab=lab, more=more)
    found = run("cpu", CLUSTER, infra=infra, gateway={"servers": ["http://192.168.1.12:8000"]})
    waits = found.commands["more/stt/stt_server/service"].dependencies
    assert "lab/one/stt_server/verify" in waits
    found = run("cpu", CLUSTER, infra=infra, gateway={"servers": ["http://192.168.1.12:8001"]})
    waits = found.commands["more/stt/stt_server/service"].dependencies
    assert "lab/one/stt_server/verify" not in waits


def test_a_foreign_server_s_model_is_none_of_this_stack(tmp_path: Path) -> None:
    card = {"card": {"devices": {"gpu": {"type": "gpu", "gputype": "physical"}}}}
    fast = machine(STT, gpu=True, profiles=["default", "card"])
    file = written(tmp_path, lab={"fast": fast, "front": machine(GATEWAY)}, more={})
    data = yaml.safe_load(Path(file).read_text())
    data["domains"]["lab"]["profiles"] = card
    for listen, said in (("tcp:0.0.0.0:8000", []), (LISTEN, ["stt:model"])):
        data["domains"]["more"]["machines"] = {"slow": machine(STT, listen)}
        Path(file).write_text(yaml.safe_dump(data, sort_keys=False))
        assert [each[:9] for each in problems(file, URL, model="")] == said


# The health path of an engine of one's own


def test_the_watcher_gets_the_health_path_of_an_engine_of_one_s_own(tmp_path: Path) -> None:
    light = ROOT / "tests" / "e2e" / "light_engine"
    files = {"install": str(light / "install.sh"), "unit": str(light / "engine.service")}
    infra = written(
        tmp_path,
        lab={"one": machine(STT), "front": machine(GATEWAY)},
        more={"two": machine(STT, LISTEN)},
    )
    found = run(
        "cpu",
        infra=infra,
        engine="custom",
        model="mine",
        custom={**files, "health": "/v1/models"},
        gateway={"servers": [URL, "http://192.168.1.20:8000"]},
    )
    [file] = found.commands["lab/front/stt_gateway/watcher"].spec["files"]
    paths = {each["name"]: each["health"] for each in json.loads(file["content"])["servers"]}
    # A server of another stack is nobody's to know.
    elsewhere = "192.168.1.20:8000"
    assert paths == {"one": "/v1/models", URL[7:]: "/v1/models", elsewhere: "/health"}


# Ports that two want


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (LISTEN, LISTEN),
        ("tcp:0.0.0.0:8000", LISTEN),
        (LISTEN, "tcp:0.0.0.0:8000"),
        ("tcp:[::]:8000", LISTEN),
        ("tcp:192.168.1.11:7000-8000", "tcp:192.168.1.11:80,8000"),
        ("udp:192.168.1.11:8000", "udp:0.0.0.0:8000"),
    ],
)
def test_two_devices_on_one_port(tmp_path: Path, one: str, two: str) -> None:
    place = "infra.yml: domains.{}.machines.{}.devices.lan.listen"
    first, second = machine([BASE], one), machine([BASE], two)
    for each in (first, second):
        each["devices"]["lan"]["connect"] = each["devices"]["lan"]["listen"]
    for domains, name in (
        ({"lab": {"one": first, "two": second}}, "lab"),
        ({"lab": {"one": first}, "more": {"two": second}}, "more"),
    ):
        other = place.format("lab", "one")
        assert problems(written(tmp_path, **domains)) == [
            f'{place.format(name, "two")}: "{two}" takes port 8000 of the host, and so does '
            f'"{one}" of lab/one ({other}). Give one of them another port, or each an address of '
            "the host of its own."
        ]


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (LISTEN, "tcp:192.168.1.12:8000"),
        (LISTEN, "tcp:192.168.1.11:8001"),
        (LISTEN, "udp:192.168.1.11:8000"),
        ("tcp:0.0.0.0:1-10,20", "tcp:0.0.0.0:11-19"),
    ],
)
def test_two_devices_side_by_side(tmp_path: Path, one: str, two: str) -> None:
    assert problems(written(tmp_path, lab={"a": machine([BASE], one, two)})) == []
    assert (
        problems(written(tmp_path, lab={"a": machine([BASE], one), "b": machine([BASE], two)}))
        == []
    )


def test_one_that_listens_inside_takes_no_port_of_the_host(tmp_path: Path) -> None:
    inside = machine([BASE], LISTEN)
    inside["devices"]["lan"] |= {"bind": "instance", "connect": "tcp:192.168.1.5:80"}
    assert problems(written(tmp_path, lab={"one": machine([BASE], LISTEN), "two": inside})) == []


def test_several_of_one_machine_have_one_device(tmp_path: Path) -> None:
    lab = {"stt": machine(STT, LISTEN, count=3), "front": machine(GATEWAY)}
    [said] = problems(written(tmp_path, lab=lab))
    assert said.startswith(
        f'infra.yml: domains.lab.machines.stt.devices.lan.listen: "{LISTEN}" is for lab/stt and '
        "lab/stt-2, and only one of them can listen on port 8000 of their host. "
    )


def test_open_webui_s_port(tmp_path: Path) -> None:
    lab = {"web": {"roles": [BASE, "open_webui"]}, "one": machine([BASE], "tcp:127.0.0.1:3000")}
    infra = written(tmp_path, lab=lab)
    [said] = problems(infra)
    assert said.startswith(
        'infra.yml: domains.lab.machines.one.devices.lan.listen: "tcp:127.0.0.1:3000" takes port '
        '3000 of the host, and so does "tcp:127.0.0.1:3000" of lab/web (stt:webui.publish).'
    )
    assert problems(infra, webui={"publish": ""}) == []
    assert problems(infra, webui={"publish": "127.0.0.1:3001"}) == []
    assert len(problems(infra, webui={"publish": "0.0.0.0:3000"})) == 1


@pytest.mark.parametrize(
    ("members", "refused"),
    [
        (("node1", "node1"), True),
        (("node1", "node2"), False),
        (("@gpu", "@gpu"), False),  # which one it will be, the cluster tells
        (("node1", None), False),
    ],
)
def test_in_a_cluster_two_members_have_a_port_each(
    tmp_path: Path, members: tuple[str, str | None], refused: bool
) -> None:
    one, two = (machine([BASE], LISTEN, member=each) for each in members)
    infra = written(tmp_path, lab={"one": one}, more={"two": two})
    assert bool(problems(infra)) is refused


def test_in_a_cluster_that_was_read_the_members_are_known(tmp_path: Path) -> None:
    one, two = (machine([BASE], "tcp:0.0.0.0:8000", member=each) for each in ("@gpu", "node2"))
    infra = written(tmp_path, lab={"one": one}, more={"two": two})
    with pytest.raises(pulumi.RunError, match="takes port 8000 of the host"):
        run("cpu", CLUSTER, infra=infra)  # of the group, node2 comes first
    two["member"] = "node3"
    assert run(
        "cpu", CLUSTER, infra=written(tmp_path, lab={"one": one}, more={"two": two})
    ).commands
