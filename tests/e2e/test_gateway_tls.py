"""HTTPS at the gateway: with an authority of its own, with an operator's certificate, and back."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.load import Load
from tests.e2e.project import (
    RECORDINGS,
    Answer,
    Project,
    changed,
    incus,
    left_of,
    machine,
    post_recording,
    request,
    run,
    wait_until,
)

pytestmark = pytest.mark.seldom

DOMAIN, SUBNET = "stt-e2e-gs", "10.213.78"
ADDRESS = f"{SUBNET}.1"
PLAIN = 9146


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A gateway with a certificate of its own, a server and Open WebUI; the tests build on it."""
    stack = Project(tmp_path_factory.mktemp("gateway-tls"), DOMAIN, SUBNET)
    stack.machines = {
        "gateway": machine("base_system", "stt_gateway"),
        "stt": machine("base_system", "stt_server"),
        "webui": machine("base_system", "open_webui"),
    }
    stack.set(gateway={"tls": "internal"}, webui={"publish": ""})
    try:
        stack.up()
        yield stack
    finally:
        stack.destroy()
    assert left_of(DOMAIN) == []


def transcribed(project: Project, trust: ssl.SSLContext | None = None) -> Answer:
    """A recording through the published URL."""
    outputs = project.outputs()
    recording = RECORDINGS / "hello_world.wav"
    url, key = outputs["stt_url"], outputs["stt_api_key"]
    return post_recording(url, recording, "whisper-1", key, trust)


def trust_of(project: Project) -> ssl.SSLContext:
    """What a computer has that trusts the gateway's authority."""
    return ssl.create_default_context(cadata=project.outputs()["gateway_ca"])


def shown() -> str:
    """The certificate that the gateway shows."""
    return ssl.get_server_certificate((ADDRESS, 8000), timeout=20)


def invocation(project: Project) -> str:
    words = ("systemctl", "show", "-P", "InvocationID", "stt-gateway.service")
    return project.inside(*words, machine="gateway")


def test_clients_that_trust_its_authority_are_answered(project: Project) -> None:
    outputs = project.outputs()
    assert outputs["stt_url"] == f"https://{ADDRESS}:8000/v1"
    assert outputs["stt_health_url"] == f"https://{ADDRESS}:8000/health"
    assert outputs["gateway_check"]["text"] == "one two three"
    assert transcribed(project, trust_of(project)).json["text"] == "hello world"
    with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
        transcribed(project)
    plain = request(f"http://{ADDRESS}:8000/health")
    assert plain.status == 400 and "https://" in plain.json["error"]["message"]
    (project.root / "gateway_ca.crt").write_text(outputs["gateway_ca"])
    line = f"export STT_API_KEY={outputs['stt_api_key']}; {outputs['stt_curl']}"
    assert '"one two three"' in run("sh", "-c", line, cwd=project.root).stdout
    assert project.unchanged() and project.drift() == []


def test_open_webui_hears_and_needs_to_trust_nothing(project: Project) -> None:
    assert project.outputs()["webui_check"]["text"] == "one two three"
    others = request(f"http://{ADDRESS}:{PLAIN}/v1/models", project.outputs()["stt_api_key"])
    assert others.status == 403, "nobody else is answered without TLS"


def test_status_and_doctor_look_at_it(project: Project) -> None:
    status = project.make("status")
    assert status.returncode == 0 and "gets requests" in status.stdout, status.stdout
    said = project.make("doctor").stdout
    assert "good      gateway certificate" in said, said
    assert "that of stt-gateway lasts 365 days" in said, said


def test_another_name_is_certified_in_place(project: Project) -> None:
    before, trust = invocation(project), trust_of(project)
    project.set(gateway={"tls": "internal", "names": ["stt.test"]})
    outputs = project.outputs()
    with Load(outputs["stt_url"], outputs["stt_api_key"], trust=trust) as load:
        said = project.up()
    assert load.wrong == [] and load.good > 5
    assert invocation(project) == before, "no request waits for a restart"
    assert project.outputs()["stt_url"] == "https://stt.test:8000/v1"
    assert f"{DOMAIN}/gateway/stt_gateway/verify" in changed(said), "it was tried by its name"
    assert (
        "DNS:stt.test"
        in run("openssl", "x509", "-noout", "-ext", "subjectAltName", input=shown()).stdout
    )


def test_its_authority_outlives_its_machine(project: Project) -> None:
    before = project.outputs()["gateway_ca"]
    incus("delete", "--force", "gateway", project=DOMAIN)
    project.up()
    assert project.outputs()["gateway_ca"] == before
    assert project.outputs()["gateway_check"]["text"] == "one two three"


def operators(directory: Path, *names: str) -> dict[str, str]:
    """Files with a certificate of the operator's."""
    files = {"certificate": directory / "own.pem", "certificateKey": directory / "own.key"}
    words = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=own.test", "-days", "2")
    places = ("-keyout", str(files["certificateKey"]), "-out", str(files["certificate"]))
    done = run("openssl", *words, *places, "-addext", f"subjectAltName={','.join(names)}")
    assert done.returncode == 0, done.stderr
    return {key: str(file) for key, file in files.items()}


def test_an_operators_certificate_and_its_renewal(project: Project) -> None:
    gateway: dict[str, Any] = {"tls": "files", **operators(project.root, "DNS:own.test")}
    project.set(gateway=gateway)
    assert f"own.pem is not for {ADDRESS}" in project.fails().replace('"', "")
    operators(project.root, f"IP:{ADDRESS}", "DNS:own.test")
    project.up()
    file = project.root / "own.pem"
    assert shown().strip() == file.read_text().strip()
    assert "gateway_ca" not in project.outputs()
    words = ("stat", "-c", "%a %U", "/etc/incus-stt/stt_gateway/key.pem")
    assert project.inside(*words, machine="gateway") == "600 stt-gateway"

    before = invocation(project)
    trust = ssl.create_default_context(cafile=str(file))
    operators(project.root, f"IP:{ADDRESS}")
    trust.load_verify_locations(file)  # clients trust both meanwhile
    outputs = project.outputs()
    with Load(outputs["stt_url"], outputs["stt_api_key"], trust=trust) as load:
        project.up()
        wait_until(lambda: shown().strip() == file.read_text().strip())
    assert load.wrong == [] and load.good > 5
    assert invocation(project) == before, "no request waits for a restart"
    private = Path(gateway["certificateKey"]).read_text().splitlines()[1]
    states = [path for path in (project.root / "state").rglob("*") if path.is_file()]
    assert not any(private in path.read_text(errors="replace") for path in states)


def test_back_to_plain_http(project: Project) -> None:
    project.set(gateway=None)
    project.up()
    assert project.outputs()["stt_url"] == f"http://{ADDRESS}:8000/v1"
    assert transcribed(project).json["text"] == "hello world"
    assert project.outputs()["webui_check"]["text"] == "one two three"
    with pytest.raises(OSError, match="refused"):
        request(f"http://{ADDRESS}:{PLAIN}/health")
    assert project.unchanged() and project.drift() == []
