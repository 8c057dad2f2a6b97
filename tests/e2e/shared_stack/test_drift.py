"""What somebody changed on the host by hand: the preview names it, `up` restores it.

Every test ends with a host that is as the stack says.
"""

from __future__ import annotations

import json
import re

import pytest

from tests.e2e.project import RECORDINGS, Project, changed, incus, post_recording, run

UNIT = "/etc/systemd/system/faster-whisper.service"
ETC = "/etc/incus-stt/stt_server"
ENV = "/etc/incus-stt/faster-whisper.env"


def shell(project: Project, script: str) -> str:
    return project.inside("sh", "-euc", script)


def patch(path: str, **fields: object) -> None:
    incus("query", "-X", "PATCH", "--wait", "-d", json.dumps(fields), path)


def test_what_was_just_made_has_no_drift(project: Project) -> None:
    """Fields that Incus fills in itself, and files that programs write, are no drift."""
    assert project.drift() == []
    project.transcribe("hello_world")
    project.inside("systemctl", "restart", "faster-whisper")
    assert project.drift() == []


def test_a_preview_only_reads(project: Project) -> None:
    shell(project, "touch /run/before")
    before = shell(project, "systemctl show -P InvocationID faster-whisper")
    assert project.unchanged()
    places = "/etc /opt /srv /usr /var/lib/incus-stt /var/lib/stt"
    assert shell(project, f"find {places} -newer /run/before -o -cnewer /run/before") == ""
    assert shell(project, "systemctl show -P InvocationID faster-whisper") == before


def test_changed_incus_objects_are_named_field_by_field_and_restored(project: Project) -> None:
    domain = project.domain
    incus("project", "set", domain, "limits.containers=9")
    incus("network", "set", f"net-{domain}", "ipv4.nat=false")
    incus("profile", "set", "default", "security.nesting=true", project=domain)
    incus("profile", "device", "add", "default", "odd", "none", project=domain)
    patch(
        f"/1.0/storage-pools/{project.pool}/volumes/custom/models?project={domain}",
        description="somebody",
    )
    incus("config", "set", "gpu-server", "limits.memory=3GiB", project=domain)
    incus("config", "set", "gpu-server", "environment.API_TOKEN=hush-hush", project=domain)
    incus("config", "device", "add", "gpu-server", "odd", "none", project=domain)
    incus(
        *("config", "device", "set", "gpu-server", "eth0", f"ipv4.address={project.subnet}.77"),
        project=domain,
    )
    expected = [
        "project: config.limits.containers: 9 -> (none)",
        "network: config.ipv4.nat: false -> true",
        "profile/default: config.security.nesting: true -> (none)",
        "profile/default: devices.odd: {type: none} -> (none)",
        "volume/models: description: somebody -> incus-stt",
        "gpu-server/instance: config.environment.API_TOKEN: (another value, not shown)"
        " -> (not shown)",
        "gpu-server/instance: config.limits.memory: 3GiB -> 90%",
        f"gpu-server/instance: devices.eth0.ipv4.address: {project.subnet}.77"
        f" -> {project.subnet}.1",
        "gpu-server/instance: devices.odd: {type: none} -> (none)",
    ]
    said, drift = project.preview()
    assert drift == expected
    for line in expected:
        assert line.split(": ", 1)[1] in said
    assert "hush-hush" not in said
    project.up()
    assert project.unchanged()
    assert json.loads(incus("query", f"/1.0/networks/net-{domain}"))["config"]["ipv4.nat"] == "true"


def test_changed_files_and_services_are_named_and_restored(project: Project) -> None:
    shell(
        project,
        f"""
        sed -i s/Restart=on-failure/Restart=no/ {UNIT}
        sed -i 's/^STT_LANGUAGE=.*/STT_LANGUAGE="de"/' {ENV}
        chmod 0600 {ENV}
        mkdir -p {UNIT}.d
        printf '[Service]\\nEnvironment=STT_LANGUAGE=fr\\n' >{UNIT}.d/override.conf
        printf another-key >{ETC}/api-key
        chmod 0644 {ETC}/authorization
        systemctl disable --quiet --now faster-whisper
        """,
    )
    line = "gpu-server/stt_server/service: "
    assert project.drift() == [
        f"gpu-server/stt_server/secrets: {ETC}/api-key: (another secret, not shown) -> as written",
        f"gpu-server/stt_server/secrets: {ETC}/authorization: mode 644, owner root:root"
        " -> mode 600, owner root:root",
        f"{line}{UNIT} line: Restart=no -> Restart=on-failure",
        f'{line}{ENV} line: STT_LANGUAGE="de" -> STT_LANGUAGE=""',
        f"{line}{ENV}: mode 600, owner root:root -> mode 644, owner root:root",
        f"{line}faster-whisper.service: inactive -> active",
        f"{line}faster-whisper.service: disabled -> enabled",
        f"{line}faster-whisper.service.d: override.conf -> (none)",
    ]
    project.up()
    assert project.unchanged()
    assert project.transcribe("hello_world").json["text"] == "hello world"
    assert project.inside("systemctl", "is-enabled", "faster-whisper") == "enabled"


@pytest.mark.seldom
def test_a_key_that_somebody_adds_is_named_and_refused_again(project: Project) -> None:
    """The service takes it at once: that file is read without a restart."""
    url, key = project.outputs()["stt_url"], "key-of-a-guest"

    def status() -> int:
        return post_recording(url, RECORDINGS / "hello_world.wav", "whisper-1", key).status

    assert status() == 401
    shell(project, f"""echo '{{"guest": "{key}"}}' >{ETC}/client-keys.json""")
    assert status() == 200
    assert project.drift() == [
        f"gpu-server/stt_server/clients: {ETC}/client-keys.json: (another secret, not shown)"
        " -> as written"
    ]
    assert changed(project.up()) == [f"{project.domain}/gpu-server/stt_server/clients"]
    assert project.unchanged() and status() == 401


@pytest.mark.seldom
def test_changed_programs_and_models_are_named_and_restored(project: Project) -> None:
    shell(
        project,
        """
        for file in /opt/incus-stt/stt-server-*/stt_server/formats.py; do
            echo 'raise SystemExit' >>$file
        done
        rm -r /opt/incus-stt/faster-whisper-*/lib/python3*/site-packages/ctranslate2
        for file in /srv/models/stt/tiny-digits-*/model.bin; do truncate -s 1000 $file; done
        rm /opt/incus-stt/recording-*.wav
        dpkg --purge --force-depends zstd >/dev/null
        rm /opt/incus-stt/uv-*/bin/uv
        systemctl kill -s KILL faster-whisper
        """,
    )
    joined = "\n".join(project.drift())
    for part in (
        "base_system/packages: package zstd: not there -> there",
        "base_system/uv: /opt/incus-stt/uv-0.8.22: changed: bin/uv -> as made",
        "changed: stt_server/formats.py -> as made",
        "changed: model.bin -> as made",
        "changed: lib/python3",
        ".wav: not there -> there",
    ):
        assert part in joined, joined
    project.up()
    assert project.unchanged()
    assert project.transcribe("one_two_three").json["text"] == "one two three"


def test_a_change_of_configuration_is_shown_as_that_and_not_as_drift(project: Project) -> None:
    """Also where drift was mended before, and where there is drift at the same time."""
    project.set(keepAlive="10m")
    change = r'~ STT_KEEP_ALIVE +: "300" => "600"'
    said, drift = project.preview()
    assert len(re.findall(change, said)) == 1, said
    assert "DRIFT" not in said and drift == []
    shell(project, f"chmod 0600 {ENV}")
    expected = f"{ENV}: mode 600, owner root:root -> mode 644, owner root:root"
    said, drift = project.preview()
    assert drift == [f"gpu-server/stt_server/service: {expected}"]
    assert len(re.findall(change, said)) == 1, said
    assert said.count(expected) == 1 and said.count("DRIFT") == 1, said
    assert said.count(f"::{project.domain}/gpu-server/stt_server/service]") == 1, said
    project.up()
    project.set(keepAlive=None)
    said, drift = project.preview()
    assert re.search(r'~ STT_KEEP_ALIVE +: "600" => "300"', said), said
    assert "~ DRIFT" not in said and "+ DRIFT" not in said and "- DRIFT" not in said
    assert drift == []
    project.up()
    assert project.unchanged()


def test_an_agent_that_somebody_removed_comes_back(project: Project) -> None:
    shell(project, "rm -r /opt/incus-stt/agent*")
    assert project.drift() == [
        "gpu-server/agent: agent /opt/incus-stt/agent: does not answer -> answers"
    ]
    assert changed(project.up()) == [f"{project.domain}/gpu-server/agent"]
    assert project.unchanged()


@pytest.mark.seldom
def test_a_step_without_a_record_is_applied_again(project: Project) -> None:
    shell(project, "rm /var/lib/incus-stt/steps/*verify.json")
    assert project.drift() == ["gpu-server/stt_server/verify: step: not applied -> applied"]
    assert changed(project.up()) == [f"{project.domain}/gpu-server/stt_server/verify"]
    assert project.unchanged()
    shell(project, "rm -r /var/lib/incus-stt/steps")
    found = project.drift()
    assert "gpu-server/stt_server/service: step: not applied -> applied" in found
    assert all(line.endswith(": step: not applied -> applied") for line in found), found
    project.up()
    assert project.unchanged()


def test_a_stopped_machine_is_started(project: Project) -> None:
    incus("stop", "--force", "gpu-server", project=project.domain)
    said, drift = project.preview()
    assert drift == ["gpu-server/instance: status: Stopped -> Running"]
    assert "drift inside it was not checked" in said
    machine = f"{project.domain}/gpu-server"
    assert changed(project.up()) == [f"{machine}/instance"]
    assert project.unchanged()
    assert project.health()["status"] == "ok"
    # And what differs in it is restored by the same up.
    shell(project, "rm /etc/incus-stt/stt_server/api-key")
    incus("stop", "--force", "gpu-server", project=project.domain)
    assert f"{machine}/stt_server/secrets" in changed(project.up())
    assert project.unchanged()
    assert project.transcribe("hello_world").json["text"] == "hello world"


@pytest.mark.seldom
def test_a_machine_that_was_rebuilt_is_made_again_with_all_that_was_in_it(project: Project) -> None:
    shell(project, "touch /srv/models/kept")
    words = ("rebuild", "--empty", "--force", "gpu-server")
    run("incus", "--project", project.domain, *words)  # it cannot start so
    line = "gpu-server/instance: machine gpu-server: from another image -> the one that was set up"
    assert project.drift()[0] == line
    project.up()
    assert project.unchanged()
    assert project.transcribe("hello_world").json["text"] == "hello world"
    shell(project, "rm /srv/models/kept")  # the volume is the one that was there


@pytest.mark.seldom
def test_a_deleted_domain_is_made_again(project: Project) -> None:
    domain = project.domain
    incus("delete", "--force", "gpu-server", project=domain)
    incus("storage", "volume", "delete", project.pool, "models", project=domain)
    incus("profile", "edit", "default", project=domain, stdin="devices: {}")
    incus("project", "delete", domain)
    incus("network", "delete", f"net-{domain}")
    assert project.drift()[0] == f"project: project {domain}: not there -> there"
    project.up()
    assert project.unchanged()
    assert project.transcribe("hello_world").json["text"] == "hello world"


@pytest.mark.seldom
def test_a_preview_without_the_host_says_that_drift_was_not_checked(project: Project) -> None:
    nowhere = {"INCUS_DIR": "/nonexistent"}
    preview = project.pulumi("preview", **nowhere)
    assert preview.returncode == 0, preview.stderr
    assert "Drift was not checked" in preview.stdout + preview.stderr
    assert project.pulumi("drift", **nowhere).returncode == 1
    done = project.pulumi("up", **nowhere)
    assert done.returncode != 0
    assert "the Incus daemon does not answer" in done.stdout + done.stderr
