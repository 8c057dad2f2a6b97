"""infra.yml: what it may say, what follows from it, and what is refused."""

from pathlib import Path

import pytest

from declaration.infra import load_infra
from declaration.problems import DeclarationError
from declaration.topology import Topology, plan_topology
from roles import ROLES
from tests.unit.values import STACKS


def plan(tmp_path: Path, text: str) -> Topology:
    file = tmp_path / "infra.yml"
    file.write_text(text)
    return plan_topology(load_infra(file, "infra.yml"), ROLES)


def problems(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(DeclarationError) as caught:
        plan(tmp_path, text)
    return [str(problem) for problem in caught.value.problems]


def domain(name: str = "ai-tools", level: str = "semi-trusted", rest: str = "") -> str:
    return f"  {name}:\n    trust_level: {level}\n{rest}"


@pytest.mark.parametrize("file", ["infra.yml", "infra.cpu.yml", "infra.dev.yml"])
def test_the_shipped_topologies_put_the_server_at_its_address(file: str, tmp_path: Path) -> None:
    topology = plan(tmp_path, (STACKS / file).read_text())
    [server] = topology.with_role("stt_server")
    assert (server.name, str(server.address)) == ("gpu-server", "10.120.0.1")
    assert str(topology.domains[0].gateway) == "10.120.0.254"
    assert topology.domains[0].bridge == "net-ai-tools"


def test_the_document_s_topology_has_both_machines(tmp_path: Path) -> None:
    topology = plan(tmp_path, (STACKS / "infra.yml").read_text())
    assert [(m.name, str(m.address)) for m in topology.machines] == [
        ("gpu-server", "10.120.0.1"),
        ("webui", "10.120.0.2"),
    ]
    assert [machine.name for machine in topology.wants_gpu] == ["gpu-server"]


@pytest.mark.parametrize(
    ("level", "subnet"),
    [
        ("admin", "10.100.0.0/24"),
        ("trusted", "10.110.0.0/24"),
        ("semi-trusted", "10.120.0.0/24"),
        ("untrusted", "10.130.0.0/24"),
        ("disposable", "10.140.0.0/24"),
    ],
)
def test_the_subnet_follows_from_the_trust_level(tmp_path: Path, level: str, subnet: str) -> None:
    topology = plan(tmp_path, "domains:\n" + domain(level=level))
    assert str(topology.domains[0].subnet) == subnet


def test_domains_of_one_level_are_numbered_in_file_order(tmp_path: Path) -> None:
    text = "domains:\n" + domain("a") + domain("b", "admin") + domain("c")
    found = {d.name: str(d.subnet) for d in plan(tmp_path, text).domains}
    assert found == {"a": "10.120.0.0/24", "b": "10.100.0.0/24", "c": "10.120.1.0/24"}


def test_addressing_can_be_changed(tmp_path: Path) -> None:
    text = "global: {addressing: {base_octet: 172, zone_base: 16, zone_step: 1}}\ndomains:\n"
    assert str(plan(tmp_path, text + domain()).domains[0].subnet) == "172.18.0.0/24"


def test_a_line_that_is_inserted_renumbers_nothing_that_is_pinned(tmp_path: Path) -> None:
    pinned = domain(
        "b",
        rest="    subnet: 10.120.0.0/24\n    machines:\n      new: {}\n"
        "      old: {ip: 10.120.0.1}\n      next: {}\n",
    )
    topology = plan(tmp_path, "domains:\n" + domain("a") + pinned)
    assert {d.name: str(d.subnet) for d in topology.domains} == {
        "a": "10.120.1.0/24",
        "b": "10.120.0.0/24",
    }
    found = {m.name: str(m.address) for m in topology.machines}
    assert found == {"old": "10.120.0.1", "new": "10.120.0.2", "next": "10.120.0.3"}


def test_yaml_booleans_and_numbers_of_config_become_incus_text(tmp_path: Path) -> None:
    rest = "    machines:\n      a: {config: {limits.cpu: 2, security.nesting: true}}\n"
    machine = next(iter(plan(tmp_path, "domains:\n" + domain(rest=rest)).machines))
    assert machine.machine.config == {"limits.cpu": "2", "security.nesting": "true"}


MACHINES = "    machines:\n      gpu-server: "
BAD = {
    "no mapping": ("- a\n", "begins with `domains:`"),
    "no yaml": ("domains: [\n", "not valid YAML"),
    "no domains": ("domains: {}\n", "domains"),
    "key twice": ("domains:\n" + domain() + domain(), 'the key "ai-tools" is there twice'),
    "unknown key": ("domain:\n" + domain(), 'Did you mean "domains"?'),
    "unknown machine key": (
        "domains:\n" + domain(rest=MACHINES + "{role: []}\n"),
        "domains.ai-tools.machines.gpu-server.role: unknown key. Did you mean \"roles\"?",
    ),
    "unknown level": ("domains:\n" + domain(level="semi"), '"semi" is not allowed'),
    "unknown role": (
        "domains:\n" + domain(rest=MACHINES + "{roles: [stt_sever]}\n"),
        '"stt_sever" is not a role. Did you mean "stt_server"?',
    ),
    "role twice": (
        "domains:\n" + domain(rest=MACHINES + "{roles: [base_system, base_system]}\n"),
        "is listed twice",
    ),
    "unknown profile": (
        "domains:\n" + domain(rest=MACHINES + "{profiles: [default, gpu]}\n"),
        '"gpu" is not a profile',
    ),
    "no default profile": (
        "domains:\n" + domain(rest=MACHINES + "{profiles: []}\n"),
        "lacks default",
    ),
    "own default profile": (
        "domains:\n" + domain(rest="    profiles: {default: {}}\n"),
        "is made by the program",
    ),
    "own network device": (
        "domains:\n" + domain(rest=MACHINES + "{devices: {eth0: {type: nic}}}\n"),
        "devices.eth0: is made by the program",
    ),
    "bridge too long": ("domains:\n" + domain("twelve-chars"), "has at most 15"),
    "default project": ("domains:\n" + domain("default"), "Incus' own project"),
    "bad name": ("domains:\n" + domain("Ai_Tools"), "is not a name for Incus"),
    "name is no": ("domains:\n" + domain("no"), "valid string"),
    "type": ("domains:\n" + domain(rest=MACHINES + "{type: vm}\n"), '"vm" is not allowed'),
    "ip elsewhere": (
        "domains:\n" + domain(rest=MACHINES + "{ip: 10.9.9.9}\n"),
        "Use one of 10.120.0.1 to 10.120.0.99",
    ),
    "ip of the host": ("domains:\n" + domain(rest=MACHINES + "{ip: 10.120.0.254}\n"), "Use one of"),
    "ip twice": (
        "domains:\n" + domain(rest=MACHINES + "{ip: 10.120.0.7}\n      b: {ip: 10.120.0.7}\n"),
        "is the address of gpu-server too",
    ),
    "no ip": ("domains:\n" + domain(rest=MACHINES + "{ip: here}\n"), '"here" is not allowed'),
    "subnets overlap": (
        "domains:\n" + domain("a", rest="    subnet: 10.1.0.0/24\n")
        + domain("b", rest="    subnet: 10.1.0.0/24\n"),
        "overlaps 10.1.0.0/24 of a",
    ),
    "subnet too small": (
        "domains:\n" + domain(rest="    subnet: 10.1.0.0/28\n"),
        "is not a /24",
    ),
    "subnet with host bits": (
        "domains:\n" + domain(rest="    subnet: 10.1.0.7/24\n"),
        "10.1.0.7/24",
    ),
    "subnet of this computer": (
        "domains:\n" + domain(rest="    subnet: 127.0.1.0/24\n"),
        'subnet: "127.0.1.0/24" is not private. Use a /24 of one of 10.0.0.0/8, 172.16.0.0/12, '
        "192.168.0.0/16.",
    ),
    **{
        f"subnet {subnet}": (
            "domains:\n" + domain(rest=f"    subnet: {subnet}\n"), f'"{subnet}" is not private'
        )
        for subnet in (
            *("224.0.0.0/24", "240.0.0.0/24", "8.8.8.0/24", "172.32.0.0/24", "192.169.0.0/24"),
            *("0.0.0.0/24", "169.254.1.0/24", "100.64.0.0/24", "255.255.255.0/24"),
        )
    },
    "addressing on the internet": (
        "global: {addressing: {base_octet: 172, zone_base: 40}}\ndomains:\n" + domain(),
        "its subnet 172.60.0.0/24, which follows from global.addressing, is not private. Change "
        "base_octet",
    ),
    "key is a list": ("domains: {? [a]: b}\n", "a key is not text"),
    "deep": ("domains: " + "[" * 3000, "more than 50 levels deep"),
    "no character": ('domains: "\\ud800"\n', "an escape that names no character"),
    "no character at all": ('domains: "\\UFFFFFFFF"\n', "an escape that names no character"),
    "zone over 255": (
        "global: {addressing: {zone_base: 250}}\ndomains:\n" + domain(),
        "no subnet 10.270.x.0/24 is free or exists",
    ),
    "gpu without profile": (
        "domains:\n" + domain(rest=MACHINES + "{gpu: true}\n"),
        "none of its profiles has a gpu device",
    ),
    "profile without gpu": (
        "domains:\n" + domain(
            rest="    profiles: {n: {devices: {g: {type: gpu}}}}\n"
            + MACHINES + "{profiles: [default, n]}\n"
        ),
        "gives it a GPU. Set gpu: true",
    ),
    "two owners of the gpu": (
        "domains:\n" + domain(
            rest="    profiles: {n: {devices: {g: {type: gpu}}}}\n"
            + MACHINES + "{gpu: true, profiles: [default, n]}\n"
            "      b: {gpu: true, profiles: [default, n]}\n"
        ),
        "2 machines may get the same card: ai-tools/gpu-server, ai-tools/b",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_is_refused_is_named_with_its_place(tmp_path: Path, case: str) -> None:
    text, expected = BAD[case]
    found = problems(tmp_path, text)
    assert any(expected in problem for problem in found), found
    assert all(problem.startswith("infra.yml") for problem in found), found


def test_a_shared_gpu_lifts_the_exclusive_policy(tmp_path: Path) -> None:
    text = BAD["two owners of the gpu"][0]
    assert len(plan(tmp_path, "global: {gpu_policy: shared}\n" + text).wants_gpu) == 2


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    rest = MACHINES + "{roles: [x], profiles: [default, y], ip: 10.9.9.9}\n"
    assert len(problems(tmp_path, "domains:\n" + domain(rest=rest))) == 3


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DeclarationError, match=r'stt:infra: "nowhere.yml" cannot be read'):
        load_infra(tmp_path / "nowhere.yml", "nowhere.yml")
