"""The same topology several times: no name, address or port of one environment is another's."""

from __future__ import annotations

import json
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from declaration.environment import PORTS, Environment, environment_of
from declaration.infra import ENVIRONMENTS_MAX, SUBNETS, TRUST_LEVELS, Infra
from declaration.problems import DeclarationError
from declaration.topology import Topology, plan_topology
from roles import ROLES
from stack.declare import declare
from stack.published import environment_conflicts
from tests.unit.program import KEPT, plain, run
from tests.unit.values import CPU

NAMES = ["production", "staging", "dev"]


def topology(data: dict[str, Any], environment: str) -> Topology:
    infra = Infra.model_validate(data)
    return plan_topology(infra, ROLES, "x.yml", environment_of(environment, infra, "x.yml"))


def lab(listed: list[str] | None = None, **domain: Any) -> dict[str, Any]:
    """A topology of one domain."""
    known = NAMES if listed is None else listed
    return {
        "global": {"environments": known},
        "domains": {"lab": {"trust_level": "semi-trusted", "machines": {"box": {}}, **domain}},
    }


def declared(root: Path, data: dict[str, Any], **settings: Any) -> Any:
    (root / "x.yml").write_text(yaml.safe_dump(data))
    return declare({**CPU, "infra": "x.yml", **settings}, ROLES, root)


def problem(root: Path, data: dict[str, Any], **settings: Any) -> str:
    with pytest.raises(DeclarationError) as caught:
        declared(root, data, **settings)
    [found] = caught.value.problems
    return str(found)


@pytest.mark.parametrize(
    ("environment", "name", "bridge", "subnet"),
    [
        ("", "lab", "net-lab", "10.120.0.0/24"),
        ("production", "lab", "net-lab", "10.120.0.0/24"),
        ("staging", "lab-staging", "net1-lab", "10.120.32.0/24"),
        ("dev", "lab-dev", "net2-lab", "10.120.64.0/24"),
    ],
)
def test_an_environment_has_names_and_addresses_of_its_own(
    environment: str, name: str, bridge: str, subnet: str
) -> None:
    [domain] = topology(lab(), environment).domains
    assert (domain.name, domain.bridge, str(domain.subnet)) == (name, bridge, subnet)
    [box] = domain.machines
    assert (box.domain, box.resource("instance")) == (name, f"{name}/box/instance")
    assert box.address == IPv4Network(subnet)[1]


def test_what_is_pinned_moves_too() -> None:
    listen = {"type": "proxy", "listen": "tcp:0.0.0.0:80,8000-8002", "connect": "tcp:10.7.3.9:1"}
    inner = {"type": "proxy", "bind": "instance", "listen": "tcp:127.0.0.1:9000", "connect": "x"}
    devices = {"out": listen, "in": inner, "socket": {**listen, "listen": "unix:/run/x"}}
    data = lab(
        subnet="10.7.3.0/24",
        formerly="old",
        profiles={"port": {"devices": {"out": listen}}},
        machines={"box": {"ip": "10.7.3.9", "devices": devices}},
    )
    [domain] = topology(data, "dev").domains
    assert (str(domain.subnet), str(domain.machines[0].address)) == ("10.7.67.0/24", "10.7.67.9")
    found = domain.machines[0].machine.devices
    assert found["out"]["listen"] == "tcp:0.0.0.0:280,8200-8202"
    assert found["out"]["connect"] == "tcp:10.7.67.9:1"
    assert (found["in"], found["socket"]["listen"]) == (inner, "unix:/run/x")
    assert domain.profiles["port"].devices["out"]["listen"] == "tcp:0.0.0.0:280,8200-8202"
    assert (domain.former, domain.former_bridge) == ("old-dev", "net2-old")
    names = topology(data, "dev")
    assert names.former_name("lab-dev/box/instance") == "old-dev/box/instance"


@pytest.mark.parametrize("subnet", [None, "10.7.3.0/24"])
def test_a_proxy_leads_to_the_machines_of_its_own_environment(subnet: str | None) -> None:
    """Also where the address follows from the trust level, and in another domain of the file."""
    net = (subnet or "10.120.0.0/24").removesuffix("0/24")
    ends = {
        "own": f"tcp:{net}1:8000",
        "host": f"udp:{net}254:53,80-81",
        "other": "tcp:10.110.0.1:8000",
        "loopback": "tcp:127.0.0.1:8000",
        "lan": "tcp:192.168.1.5:8000",
        "near": "tcp:10.7.4.1:8000",
        "six": "tcp:[::1]:8000",
        "odd": f"tcp:{net}1111:8000",
        "socket": "unix:/run/x",
    }
    devices = {
        name: {"type": "proxy", "bind": "instance", "listen": end, "connect": end}
        for name, end in ends.items()
    }
    devices["out"] = {"type": "proxy", "listen": f"tcp:{net}254:80", "connect": ends["own"]}
    devices["disk"] = {"type": "disk", "connect": ends["own"]}
    data = lab(
        subnet=subnet,
        profiles={"all": {"devices": devices}},
        machines={"box": {"devices": devices}},
    )
    data["domains"]["more"] = {"trust_level": "trusted", "machines": {"box": {}}}

    def found(environment: str) -> dict[str, Any]:
        plan = next(each for each in topology(data, environment).domains if each.written == "lab")
        assert dict(plan.profiles["all"].devices) == plan.machines[0].machine.devices
        return plan.machines[0].machine.devices

    assert found("production") == found("") == devices
    staging = found("staging")
    third = int(net.split(".")[2]) + 32
    there = net.rsplit(".", 2)[0] + f".{third}."
    moved = {
        "own": f"tcp:{there}1:8000",
        "host": f"udp:{there}254:53,80-81",
        "other": "tcp:10.110.32.1:8000",
    }
    for name, end in {**ends, **moved}.items():
        assert (staging[name]["connect"], staging[name]["listen"]) == (end, end)
    assert staging["out"]["listen"] == f"tcp:{there}254:180"
    assert staging["out"]["connect"] == moved["own"]
    assert staging["disk"] == devices["disk"]


def test_open_webui_is_published_on_a_port_of_its_own() -> None:
    def published(**settings: Any) -> Any:
        program = run("cpu", **settings)
        name = next(name for name in program.commands if name.endswith("/webui/instance"))
        return program.commands[name].data["devices"]["publish"]["listen"], program.outputs

    assert published()[0] == "tcp:127.0.0.1:3000"
    listen, outputs = published(environment="staging")
    assert (listen, outputs["webui_url"]) == ("tcp:127.0.0.1:3100", "http://localhost:3100")
    assert outputs["stt_url"] == "http://10.120.32.1:8000/v1"
    own = {"publish": "127.0.0.1:3000"}
    assert published(environment="staging", webui=own)[0] == "tcp:127.0.0.1:3000"
    assert published(environment="staging", webui={"port": 3001})[0] == "tcp:127.0.0.1:3100"


#: What an environment has of its own, and what production has there.
OF_STAGING = {
    "ai-tools-staging": "ai-tools",
    "net1-ai-tools": "net-ai-tools",
    "10.120.32.": "10.120.0.",
    "attic": "rack",
}


@pytest.mark.parametrize("kind", ["ssh", pytest.param("incus", marks=pytest.mark.sweep)])
def test_environments_on_several_hosts_are_the_same_but_for_names_and_addresses(kind: str) -> None:
    """And all that one does is asked of its own host."""
    hosts = {"staging": f"{kind}:attic", "production": f"{kind}:rack"}
    own = {"publish": "127.0.0.1:3000"}  # free, on a host that has one environment
    made = {name: run("cpu", environment=name, connection=hosts[name], webui=own) for name in hosts}

    def inputs(environment: str) -> dict[str, Any]:
        return {name: plain(each.inputs) for name, each in made[environment].commands.items()}

    staging, production = inputs("staging"), inputs("production")
    for found, mine, other in ((staging, "attic", "rack"), (production, "rack", "attic")):
        assert other not in json.dumps(found)
        for key in ("create", "delete"):
            run_by = {n: [i["interpreter"], i[key]] for n, i in found.items() if key in i}
            elsewhere = {name for name, words in run_by.items() if mine not in str(words)}
            assert elsewhere == set(KEPT) & set(run_by), key
    shown = json.dumps([staging, made["staging"].outputs])
    for of_staging, of_production in OF_STAGING.items():
        assert of_staging in shown
        shown = shown.replace(of_staging, of_production)
    assert json.loads(shown) == [production, made["production"].outputs]


def test_what_goes_wrong_is_said(tmp_path: Path) -> None:
    assert problem(tmp_path, lab(), environment="stagin") == (
        'stt:environment: "stagin" is not an environment of x.yml. Did you mean "staging"? '
        "Allowed: production, staging, dev, or empty."
    )
    assert "List it there, as in global.environments: [production, staging]" in problem(
        tmp_path, lab([]), environment="staging"
    )
    assert 'domains.lab.subnet: "10.7.32.0/24" leaves no room' in problem(
        tmp_path, lab(subnet="10.7.32.0/24")
    )
    for environment in ("", "staging"):
        found = problem(tmp_path, lab(subnet="10.7.0.0/16"), environment=environment)
        assert 'subnet: "10.7.0.0/16" is not a /24' in found
    out = {"type": "proxy", "listen": "tcp:0.0.0.0:1,65500", "connect": "tcp:127.0.0.1:80"}
    boxes = {"box": {"devices": {"out": out}}}
    assert declared(tmp_path, lab(NAMES[:1], machines=boxes))
    for environment in ("", "production", "staging"):
        assert problem(tmp_path, lab(machines=boxes), environment=environment) == (
            'x.yml: domains.lab.machines.box.devices.out.listen: "tcp:0.0.0.0:1,65500" leaves no '
            "room for other environments: each adds 100 to the port, which would be 65600 in "
            "staging, and the last port is 65535. Use a port of at most 65335."
        )
    assert "is listed twice" in problem(tmp_path, lab(["a", "a"]))
    assert "at most 8" in problem(tmp_path, lab([f"e{n}" for n in range(9)]))
    long = lab()
    long["domains"] = {"eleven-char": long["domains"]["lab"]}
    assert declared(tmp_path, long).topology.domains[0].bridge == "net-eleven-char"
    assert problem(tmp_path, long, environment="dev") == (
        "x.yml: domains.eleven-char: its bridge net2-eleven-char in the environment dev would have "
        "16 characters, and an interface name has at most 15. Use a name of at most 10 characters."
    )


def published(*listen: str, **keys: Any) -> dict[str, Any]:
    """Machines that publish at these; the first has ``keys``."""
    return {
        f"box{number}": {
            "devices": {"out": {"type": "proxy", "listen": each, "connect": "tcp:127.0.0.1:80"}},
            **({} if number else keys),
        }
        for number, each in enumerate(listen)
    }


def shared_ports(root: Path, machines: dict[str, Any], **settings: Any) -> list[str]:
    """What the preview says of ports of several environments."""
    found = declared(root, lab(settings.pop("listed", None), machines=machines), **settings)
    said = environment_conflicts(found.settings, found.topology, found.settings.infra)
    return [str(each) for each in said]


@pytest.mark.parametrize("environment", ["", *NAMES])
def test_a_port_that_two_environments_would_have_is_named_in_each(
    tmp_path: Path, environment: str
) -> None:
    """It is a warning: they may be on hosts of their own."""
    place = "x.yml: domains.lab.machines.{}.devices.out.listen"
    machines = published("tcp:0.0.0.0:8100", "tcp:192.168.1.5:8000")
    assert shared_ports(tmp_path, machines, environment=environment) == [
        f'{place.format("box1")}: "tcp:192.168.1.5:8100" in staging takes port 8100 of the host, '
        f'and so does "tcp:0.0.0.0:8100" in production ({place.format("box0")}): each environment '
        "adds 100. On one host only one of them can listen there. Give them ports that differ in "
        "their last two digits, or the environments hosts of their own (stt:connection)."
    ]


@pytest.mark.parametrize(
    ("listen", "named"),
    [
        (("tcp:0.0.0.0:8000", "tcp:0.0.0.0:8200"), 1),  # production's and dev's
        (("tcp:0.0.0.0:8000", "tcp:0.0.0.0:8300"), 0),  # there are three
        (("tcp:0.0.0.0:8000", "tcp:0.0.0.0:8101"), 0),
        (("tcp:192.168.1.5:8000", "tcp:192.168.1.6:8100"), 0),
        (("tcp:192.168.1.5:8000", "udp:192.168.1.5:8100"), 0),
        (("udp:0.0.0.0:8000", "udp:192.168.1.5:8100"), 1),
        (("tcp:0.0.0.0:8000-8100",), 1),
        (("tcp:10.120.0.254:8000-8100",), 0),  # each environment has a bridge of its own
    ],
)
def test_ports_of_environments_that_meet(
    tmp_path: Path, listen: tuple[str, ...], named: int
) -> None:
    assert len(shared_ports(tmp_path, published(*listen))) == named
    assert shared_ports(tmp_path, published(*listen), listed=[]) == []
    assert shared_ports(tmp_path, published(*listen), listed=["production"]) == []


def test_ports_of_environments_meet_open_webui_s(tmp_path: Path) -> None:
    """Its port is in each stack's file: in the others it is taken to be the default, if here."""
    roles = {"roles": ["base_system", "stt_server", "open_webui"]}
    lan = published("tcp:0.0.0.0:3100", **roles)
    for environment in NAMES:
        [said] = shared_ports(tmp_path, lan, environment=environment)
        assert said.startswith('stt:webui.publish: "tcp:127.0.0.1:3100" in staging takes port 3100')
    web = {"publish": "127.0.0.1:3001"}
    assert shared_ports(tmp_path, lan, environment="staging", webui=web) == []
    web = {"publish": "127.0.0.1:3300"}
    [said] = shared_ports(tmp_path, lan, webui=web)
    assert 'listen: "tcp:0.0.0.0:3300" in dev takes port 3300' in said
    assert '"tcp:127.0.0.1:3300" in production (stt:webui.publish)' in said


def test_the_preview_warns_of_ports_that_environments_share(tmp_path: Path) -> None:
    data = lab(machines=published("tcp:0.0.0.0:8100", "tcp:0.0.0.0:8000"))
    (tmp_path / "x.yml").write_text(yaml.safe_dump(data))
    found = run("cpu", infra=str(tmp_path / "x.yml"), environment="dev")
    assert len([line for line in found.log if "takes port 8100 of the host" in line]) == 1
    assert found.commands


def test_without_a_list_a_topology_may_have_256_subnets_of_a_level() -> None:
    assert list(Environment().subnets) == list(range(256))
    [domain] = topology(lab([], subnet="10.7.200.0/24"), "").domains
    assert str(domain.subnet) == "10.7.200.0/24"


_DOMAINS = st.dictionaries(
    st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True),
    st.builds(
        lambda level, third: {
            "trust_level": level,
            **({} if third is None else {"subnet": f"10.9.{third}.0/24"}),
            "machines": {"a": {}, "b": {}},
        },
        st.sampled_from(TRUST_LEVELS),
        st.one_of(st.none(), st.integers(0, SUBNETS - 1)),
    ),
    min_size=1,
    max_size=6,
)


@pytest.mark.sweep
@settings(deadline=None)
@given(domains=_DOMAINS)
def test_environments_never_meet(domains: dict[str, Any]) -> None:
    thirds = [each["subnet"] for each in domains.values() if "subnet" in each]
    if len(thirds) != len(set(thirds)):
        return  # refused, whatever the environment
    listed = [f"e{number}" for number in range(ENVIRONMENTS_MAX)]
    data = {"global": {"environments": listed}, "domains": domains}
    seen: set[str] = set()
    for environment in listed:
        found = topology(data, environment)
        own = {text for d in found.domains for text in (d.name, d.bridge, str(d.subnet))}
        own |= {str(machine.address) for machine in found.machines}
        assert not own & seen
        assert all(len(each.bridge) <= 15 for each in found.domains)
        seen |= own


def test_the_default_ports_of_environments_do_not_meet() -> None:
    ports = {Environment(str(n), n).port(port) for n in range(8) for port in (3000, 8000)}
    assert len(ports) == 16 and PORTS > 1
