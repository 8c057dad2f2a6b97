"""Settings of the machines and of the topology, seen on the machines."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.documented import command
from tests.e2e import memory_pool, stand_in_ollama
from tests.e2e.documented import follow
from tests.e2e.project import Project, incus, left_of, light, wait_until, way_out

DOMAIN, SUBNET, POOL = "stt-e2e-m", "10.213.46", "stt-e2e-m-pool"


def certificate(name: str) -> str:
    """A CA certificate of its own, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM).decode()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    memory_pool.add(POOL)
    stack = Project(tmp_path_factory.mktemp("machines"), DOMAIN, SUBNET)
    try:
        (stack.root / "ca.pem").write_text(
            certificate("incus-stt one") + certificate("incus-stt two")
        )
        light(stack)
        stack.machines = {
            "first": {
                "roles": ["base_system", "ollama_server"],
                "config": {"limits.memory": "1GiB", "limits.cpu": 1},
            },
            "gpu-server": {"roles": ["stt_server"], "ip": f"{SUBNET}.7"},
            "second": {"roles": ["base_system"]},
            "bare": {"roles": []},
        }
        stack.set(
            pool=POOL,
            caBundle="ca.pem",
            image="incus-stt/images/debian/12",
            sources={"ollama": stand_in_ollama.make_archive(stack.root / "ollama.tar.gz")},
            ollama={"port": 11500},
        )
        stack.up()
        yield stack
    finally:
        stack.destroy()
        assert left_of(DOMAIN) == []
        incus("storage", "delete", POOL)


def instance(name: str) -> Any:
    return json.loads(incus("query", f"/1.0/instances/{name}?project={DOMAIN}"))


def test_machines_have_their_addresses(project: Project) -> None:
    for machine, address in (("first", f"{SUBNET}.1"), ("gpu-server", f"{SUBNET}.7")):
        assert address in project.inside("ip", "-4", "addr", "show", "eth0", machine=machine)
    assert project.outputs()["stt_url"] == f"http://{SUBNET}.7:8000/v1"


#: Has systemd-resolved ask the neighbours too, as public images do; then asks 200 times by name.
ASK_BY_NAME = """
sleep 1
printf '[Resolve]\nLLMNR=yes\nMulticastDNS=yes\n' >/etc/systemd/resolved.conf.d/10-image.conf
systemctl restart systemd-resolved
timeout 300 sh -c 'until resolvectl dns | grep -q "eth0.*: *[0-9]"; do sleep 0.1; done'
for i in $(seq 200); do
    [ $((i % 7)) -gt 0 ] || resolvectl flush-caches
    curl -sf -m 30 --noproxy '*' http://gpu-server:8000/health | grep -q STT_MODEL || echo $i
done
rm /etc/systemd/resolved.conf.d/10-image.conf
resolvectl status | grep -o '[+-]LLMNR [+-]mDNS' | head -n 1  # of all links, which counts
"""


@pytest.mark.parametrize("machine", ["first", "second"])
def test_machines_know_each_other_by_name(project: Project, machine: str) -> None:
    """Every time, with cold caches and with warm ones, whatever the image has enabled.

    Incus starts the bridge's name server anew when the bridge closes, soon after `up`.
    """
    bridge = f"net-{DOMAIN}"
    wait_until(lambda: way_out(bridge) == bridge)
    assert project.inside("sh", "-c", ASK_BY_NAME, machine=machine) == "-LLMNR -mDNS"


HEALTH = "curl -sf -m 30 --noproxy '*' http://gpu-server.incus:8000/health"
#: Until its network is there, which `up` waits for in its own machines.
ASK_ONCE_UP = f'timeout 300 sh -c "until {HEALTH}; do sleep 0.1; done"'


def test_containers_without_our_roles_know_the_full_name(project: Project) -> None:
    """One that the topology has without roles, and one that somebody made by hand."""
    assert "STT_MODEL" in project.inside("sh", "-c", HEALTH, machine="bare")
    image = ("incus-stt/images/debian/12", "by-hand")
    incus("launch", *image, "--profile", "default", "--storage", POOL, project=DOMAIN)
    try:
        assert "STT_MODEL" in project.inside("sh", "-c", ASK_ONCE_UP, machine="by-hand")
    finally:
        incus("delete", "--force", "by-hand", project=DOMAIN)


def test_the_documented_transcription_is_asked_for_in_any_machine(project: Project) -> None:
    for machine in ("first", "second"):
        done = follow(project, command("gpu-server:8000"), machine)
        assert re.fullmatch(r'{"text": "\d{4,} bytes"}', done.stdout), done.stdout + done.stderr


def test_ollama_is_a_command_of_its_machine(project: Project) -> None:
    """In a login shell too; it asks the server at the port that this stack has."""
    for shell in ((), ("sh", "-lc", 'exec "$0" "$@"')):
        said = project.inside(*shell, "ollama", "--version", machine="first")
        assert said == f"ollama version is {stand_in_ollama.VERSION}", shell
    assert "11500" in project.outputs()["ollama_url"]


def test_machines_and_volumes_lie_in_the_pool(project: Project) -> None:
    assert instance("gpu-server")["expanded_devices"]["root"]["pool"] == POOL
    assert "models" in incus("storage", "volume", "list", POOL, "--format", "csv", project=DOMAIN)


def test_config_of_a_machine_takes_effect(project: Project) -> None:
    config = instance("first")["config"]
    assert (config["limits.memory"], config["limits.cpu"]) == ("1GiB", "1")
    assert project.inside("nproc", machine="first") == "1"


def test_a_machine_leaves_its_host_a_part_of_the_memory(project: Project) -> None:
    told = re.search(r"^MemTotal: +(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    assert told
    limit = "cd /sys/fs/cgroup; cat memory.max 2>/dev/null || cat memory/memory.limit_in_bytes"

    def most(machine: str) -> int:
        return int(project.inside("sh", "-c", limit, machine=machine))

    # Incus 6.0 takes the kernel's kB for 1000 bytes.
    assert most("second") == pytest.approx(int(told[1]) * 1000 * 0.9, rel=0.01)
    assert most("first") == 2**30


def test_the_image_is_the_one_of_the_setting(project: Project) -> None:
    alias = json.loads(incus("query", "/1.0/images/aliases/incus-stt%2Fimages%2Fdebian%2F12"))
    assert instance("first")["config"]["volatile.base_image"] == alias["target"]


def test_certificates_of_the_bundle_are_trusted(project: Project) -> None:
    names = project.inside(
        "sh", "-c",
        "awk '/BEGIN/ { f = \"/tmp/c\" ++n } { print > f }' /etc/ssl/certs/ca-certificates.crt && "
        "python3 - <<'E'\nimport ssl\nc = ssl.create_default_context()\n"
        "print([dict(x[0] for x in a['subject']).get('commonName') for a in c.get_ca_certs()])\nE",
        machine="first",
    )  # fmt: skip
    assert "incus-stt one" in names
    assert "incus-stt two" in names


@pytest.mark.seldom
def test_a_machine_of_somebody_else_s_making_survives(project: Project) -> None:
    incus("create", "--empty", "guest", project=DOMAIN)
    try:
        project.set(quantization="float32")
        project.up()
        assert "guest" in incus("list", "--format", "csv", project=DOMAIN)
    finally:
        incus("delete", "guest", project=DOMAIN)


@pytest.mark.seldom
def test_other_addresses_come_with_a_restart_and_keep_everything(project: Project) -> None:
    project.inside("touch", "/srv/models/kept")
    project.subnet = "10.213.49"
    project.machines["gpu-server"]["ip"] = "10.213.49.9"
    project.write()
    project.up()
    assert project.unchanged()
    assert project.outputs()["stt_url"] == "http://10.213.49.9:8000/v1"
    assert project.transcribe("hello_world").status == 200
    project.inside("ls", "/srv/models/kept")
