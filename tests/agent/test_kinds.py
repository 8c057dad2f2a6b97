from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import pwd
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent import __main__ as cli
from agent.actions import Build, Download, Git, Link, Run, Unpack, Verify
from agent.files import File
from agent.http import HealthRequest
from agent.kinds import transcription
from agent.kinds.certificates import DIRECTORY, Certificates
from agent.kinds.files import Files
from agent.kinds.model import Model
from agent.kinds.packages import Packages
from agent.kinds.program import Program
from agent.kinds.prune import Prune
from agent.kinds.run import Run as RunStep
from agent.kinds.secret_files import SecretFile, SecretFiles
from agent.kinds.transcription import Evidence, Transcription
from agent.kinds.upload import Upload
from agent.kinds.user import Directory, User
from agent.machine import VOLUME_LOCK, Machine, StepError
from agent.specs import encode
from agent.words import word_error_rate

SECRET = 'geh"eim$-und`lang'
CERTIFICATE = "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n"


def _program(agent: Any, name: str = "tool-1", *more: Any) -> Program:
    inside = agent.path(f"/opt/incus-stt/{name}")
    make = Run(["sh", "-c", f"mkdir -p {inside}/bin && echo {name} >{inside}/bin/tool"])
    return Program(f"/opt/incus-stt/{name}", name, [make, *more], requires="bin/tool")


# files


def test_files(agent: Any) -> None:
    spec = Files(
        [File("/etc/a", "1\n2\n", "0640")], [["sh", "-c", f"echo ran >>{agent.root}/then"]]
    )
    agent.apply("base/files", spec)
    assert agent.path("/etc/a").read_text() == "1\n2\n"
    assert agent.path("/etc/a").stat().st_mode & 0o777 == 0o640
    assert agent.path("/then").read_text() == "ran\n" and agent.drift() == []
    agent.path("/etc/a").write_text("1\n3\n")
    agent.path("/etc/a").chmod(0o666)
    found = agent.drift()
    assert found[0] == "/etc/a line: 3 -> 2"
    assert found[1].startswith("/etc/a: mode 666") and "-> mode 640" in found[1]
    agent.path("/etc/a").unlink()
    assert agent.drift() == ["/etc/a: not there -> there"]
    agent.remove("base/files")
    assert agent.check() == {} and not agent.path("/etc/a").exists()


def test_a_file_that_the_step_does_not_name_any_more_goes(agent: Any) -> None:
    agent.apply("base/files", Files([File("/etc/a", "a"), File("/etc/b", "b")]))
    agent.apply("base/other", Files([File("/etc/b", "b")]))  # somebody else's too
    agent.apply("base/files", Files([File("/etc/c", "c")]))
    names = [name for name in agent.tree() if name.startswith("etc")]
    assert names == ["etc/b", "etc/c"] and agent.drift() == []


def test_what_lies_beside_a_file_is_not_followed(agent: Any) -> None:
    agent.path("/etc").mkdir()
    agent.path("/precious").write_text("mine")
    agent.path("/etc/a.incus-stt").symlink_to(agent.path("/precious"))
    agent.apply("base/files", Files([File("/etc/a", "new")]))
    assert agent.path("/precious").read_text() == "mine"
    assert agent.path("/etc/a").read_text() == "new" and not agent.path("/etc/a").is_symlink()


def test_a_step_works_where_its_owner_is_missing_only_with_an_error(agent: Any) -> None:
    if os.geteuid():
        pytest.skip("owners are root's business")
    with pytest.raises(StepError, match="no user and group nobody-such"):
        agent.apply("base/files", Files([File("/etc/a", "a", owner="nobody-such:nobody-such")]))
    assert not agent.path("/etc/a").exists() and "not finished" in agent.drift()[0]


# secret_files


def _secrets(agent: Any, value: str = SECRET) -> SecretFiles:
    return SecretFiles(
        [
            SecretFile("/etc/incus-stt/x.secret", value, owner=agent.owner),
            SecretFile("/etc/key.env", variables={"KEY": value}, owner=agent.owner),
        ],
        "stt/service",
    )


def test_secrets_are_in_their_files_only(agent: Any) -> None:
    agent.apply("stt/secrets", _secrets(agent), secret=True)
    assert agent.path("/etc/incus-stt/x.secret").read_text() == SECRET
    assert agent.path("/etc/key.env").read_text().endswith('KEY="geh\\"eim\\$-und\\`lang"\n')
    for name, content in agent.tree().items():
        has = b"eim" in content or b"lang" in content
        assert has == name.startswith("etc/"), name
        if not name.startswith("run/"):
            assert agent.path(name).stat().st_mode & 0o077 == 0, f"{name} is for others to read"
    assert agent.path("/var/lib/incus-stt").stat().st_mode & 0o777 == 0o700
    assert agent.drift() == []


def test_what_came_of_secrets_changes_with_them_only(agent: Any) -> None:
    """Pulumi runs a step again that comes after them, such as a gateway's try of a server."""
    first, again, other = (
        agent.apply("stt/secrets", _secrets(agent, value), secret=True)
        for value in (SECRET, SECRET, "another one")
    )
    assert first == again != other


def test_secrets_that_a_program_reads_by_itself_restart_nothing(agent: Any) -> None:
    agent.apply("stt/service", agent.service("a"))

    def kept(value: str) -> SecretFiles:
        return SecretFiles([SecretFile("/etc/clients.json", value, owner=agent.owner)])

    agent.apply("stt/clients", kept("one"), secret=True)
    agent.systemd.log()
    agent.apply("stt/clients", kept("two"), secret=True)
    assert agent.path("/etc/clients.json").read_text() == "two"
    assert not any("restart" in line for line in agent.systemd.log())
    assert agent.drift() == []


@pytest.mark.parametrize(
    ("file", "added"),
    [
        (SecretFile("/etc/clients.json", "{}\n"), '{"guest": "key-of-theirs"}\n'),
        (
            SecretFile("/etc/clients.json", '{"phone": "key-of-phone"}\n'),
            '{"phone": "key-of-phone", "guest": "key-of-theirs"}\n',
        ),
        (SecretFile("/etc/api-key", "key-of-ours"), "key-of-ours\nkey-of-theirs\n"),
        (
            SecretFile("/etc/api-key.env", variables={"API_KEY": "key-of-ours"}),
            'API_KEY="key-of-ours"\nAPI_KEY="key-of-theirs"\n',
        ),
    ],
)
def test_a_key_that_somebody_adds_beside_ours_is_drift(
    agent: Any, file: SecretFile, added: str
) -> None:
    """Applied again, as `up` does then, the step leaves ours only."""
    spec = SecretFiles([replace(file, owner=agent.owner)])
    agent.apply("stt/clients", spec, secret=True)
    written = agent.path(file.path).read_text()
    agent.path(file.path).write_text(added)
    assert agent.check()["stt/clients"] == [
        f"{file.path}: (another secret, not shown) -> as written"
    ]
    agent.apply("stt/clients", spec, secret=True)
    assert agent.path(file.path).read_text() == written and agent.drift() == []


def test_another_secret_is_drift_that_shows_none(agent: Any) -> None:
    agent.apply("stt/secrets", _secrets(agent), secret=True)
    before = agent.tree()
    agent.path("/etc/incus-stt/x.secret").write_text("other-word")
    agent.path("/etc/key.env").unlink()
    assert agent.drift() == [
        "/etc/incus-stt/x.secret: (another secret, not shown) -> as written",
        "/etc/key.env: not there -> there",
    ]
    agent.apply("stt/secrets", _secrets(agent), secret=True)
    assert agent.drift() == [] and agent.tree().keys() == before.keys()
    agent.remove("stt/secrets")
    assert not any(name.startswith("etc") for name in agent.tree())


def test_the_same_secret_has_another_digest_in_another_machine(agent: Any) -> None:
    digests = []
    for _ in range(2):
        agent.apply("stt/secrets", _secrets(agent), secret=True)
        record = next(agent.path("/var/lib/incus-stt/steps").glob("*.json"))
        digests.append((json.loads(record.read_text())["digest"], record.read_text()))
        agent.path("/var/lib/incus-stt/salt").unlink()
    assert digests[0][0] != digests[1][0]


def test_check_makes_no_salt(agent: Any) -> None:
    agent.apply("stt/secrets", _secrets(agent), secret=True)
    agent.path("/var/lib/incus-stt/salt").unlink()
    before = agent.tree()
    assert len(agent.drift()) == 2
    assert agent.tree() == before


def test_a_service_gets_its_new_secrets_by_a_restart(agent: Any) -> None:
    agent.apply("stt/secrets", _secrets(agent), secret=True)
    agent.apply("stt/service", agent.service("a"))
    agent.systemd.log()
    agent.apply("stt/secrets", _secrets(agent), secret=True)
    assert not any("restart" in line for line in agent.systemd.log()), "nothing changed"
    agent.apply("stt/secrets", _secrets(agent, "another-one"), secret=True)
    assert "another-one" in agent.systemd.running("engine")
    refused = HealthRequest(f"{agent.systemd.url}/engine", decisive=True)  # so nothing waits
    agent.apply("stt/service", agent.service("a", health=[refused]))
    with pytest.raises(StepError, match=r"does not work with its new secrets: .*403") as failed:
        agent.apply("stt/secrets", _secrets(agent, "REFUSES"), secret=True)
    assert "REFUSES" not in str(failed.value)
    assert "last change: not finished -> finished" in agent.check()["stt/secrets"]
    agent.apply("stt/secrets", _secrets(agent), secret=True)
    assert agent.drift() == []


def test_a_secret_with_a_control_character_is_not_shown(agent: Any) -> None:
    with pytest.raises(StepError, match="control characters") as failed:
        agent.apply("stt/secrets", _secrets(agent, f"{SECRET}\n"), secret=True)
    assert SECRET not in str(failed.value) and agent.check() == {}


def test_a_kind_whose_record_would_hold_a_secret_takes_none(agent: Any) -> None:
    with pytest.raises(StepError, match="cannot hold secrets") as failed:
        agent.apply("base/files", Files([File("/etc/a", SECRET)]), secret=True)
    assert SECRET not in str(failed.value) and agent.tree() == {}


# run


def test_run_has_its_last_line_as_result(agent: Any) -> None:
    spec = RunStep(script="echo hello\necho '{\"answer\": 42}'", creates="/made")
    agent.path("/made").touch()
    assert agent.apply("stt/run", spec) == {"answer": 42}
    assert agent.leftovers() == [] and not list(agent.path("/run").glob("*.sh"))
    agent.path("/made").unlink()
    assert agent.drift() == ["/made: not there -> there"]


def test_a_script_may_be_longer_than_an_argument(agent: Any) -> None:
    """Linux takes 128 KiB of one."""
    script = "# a line of a long script\n" * 10_000 + "echo '{\"answer\": 42}'"
    assert len(script) > 200_000
    assert agent.apply("stt/run", RunStep(script=script)) == {"answer": 42}


def test_run_with_secret_values_is_checked_without_its_spec(agent: Any) -> None:
    answer = ["sh", "-c", 'echo \'[["email", "a@x", "b@x"]]\'']
    spec = RunStep(["true"], check_argv=answer, values={"password": SECRET})
    agent.apply("webui/administrator", spec, secret=True)
    assert agent.check() == {"webui/administrator": ["email: a@x -> b@x"]}
    assert "geh" not in agent.texts()


def test_what_a_run_shows_comes_while_it_runs(
    agent: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    argv = ["sh", "-c", "echo on the way >&2; false"]
    with pytest.raises(StepError, match=r"sh -c echo .* failed"):
        agent.apply("stt/run", RunStep(argv, shown=True))
    assert capfd.readouterr().err == "on the way\n"


def test_run_that_cannot_be_asked_is_drift(agent: Any) -> None:
    agent.apply("stt/run", RunStep(["true"], check_argv=["sh", "-c", "echo no json"]))
    assert agent.drift() == ["sh -c: cannot be asked -> an answer"]
    agent.apply("stt/run", RunStep(["true"], check_argv=["no-such-program"]))
    assert "cannot be read" in agent.drift()[0]


def test_run_that_fails_says_why(agent: Any) -> None:
    spec = RunStep(["sh", "-c", "echo why >&2; exit 3"], failure="It failed.", resolution="Do it.")
    with pytest.raises(StepError) as failed:
        agent.apply("stt/run", spec)
    assert str(failed.value) == "why\nIt failed.\nDo it."
    assert agent.check() == {"stt/run": ["last change: not finished -> finished"]}


def test_run_ends_at_its_deadline_with_all_that_it_started(agent: Any) -> None:
    began = time.monotonic()
    beats = agent.path("/beats")
    script = f"(while sleep 0.1; do echo >>{beats}; done) & sleep 60"
    with pytest.raises(StepError, match="did not finish within 5 s"):
        agent.apply("stt/run", RunStep(["sh", "-c", script], deadline=5))
    assert time.monotonic() - began < 30
    counted = beats.stat().st_size
    time.sleep(0.5)
    assert beats.stat().st_size == counted > 0, "what it started lives on"


def test_run_in_a_unit_has_its_values_on_no_command_line(agent: Any) -> None:
    agent.systemd.program(
        "systemd-run", "#!/bin/sh\necho \"systemd-run $* ($TOKEN)\" >>'{state}/log'\n"
    )
    spec = RunStep(
        ["tool"], environment_files=["/etc/x.env"], environment={"TOKEN": "t0ken"}, deadline=9
    )
    agent.apply("stt/run", spec)
    said = agent.systemd.log()[-1]
    assert "--setenv=TOKEN " in said and said.endswith("(t0ken)") and said.count("t0ken") == 1
    assert "EnvironmentFile=/etc/x.env" in said and "RuntimeMaxSec=9" in said


# user


def test_user(agent: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    me = pwd.getpwuid(os.geteuid())
    users: dict[str, Any] = {}
    monkeypatch.setattr("agent.kinds.user.pwd", SimpleNamespace(getpwnam=users.__getitem__))
    agent.systemd.program("useradd", "#!/bin/sh\necho \"useradd $*\" >>'{state}/log'\n")
    spec = User(me.pw_name, me.pw_uid, "/home/x", [Directory("/srv/x", "0700", agent.owner)])
    agent.apply("stt/user", spec)
    words = f"useradd --system --user-group --uid {me.pw_uid} --shell /usr/sbin/nologin"
    assert agent.systemd.log() == [f"{words} --home-dir /home/x {me.pw_name}"]
    assert agent.drift() == [f"user {me.pw_name}: not there -> there"]
    users[me.pw_name] = me
    agent.apply("stt/user", spec)
    assert agent.drift() == [] and agent.systemd.log() == []
    agent.path("/srv/x").chmod(0o755)
    agent.path("/home/x").rmdir()
    assert [line.split(":")[0] for line in agent.drift()] == ["/home/x", "/srv/x"]
    with pytest.raises(StepError, match="not 54321"):
        agent.apply("stt/user", User(me.pw_name, 54321, "/home/x"))


# packages


def test_packages(agent: Any) -> None:
    agent.systemd.program("getent", "#!/bin/sh\n", ready=True)
    assert agent.apply("base/packages", Packages(["curl", "git"], ["caddy.service"])) == {
        "installed": ["curl", "git"]
    }
    said = agent.systemd.log()
    assert "systemctl mask --quiet caddy.service" in said
    assert said.index("dpkg --configure -a") < next(
        n
        for n, line in enumerate(said)
        if line.startswith("apt-get") and "install curl git" in line
    )
    assert agent.drift() == []
    agent.apply("base/packages", Packages(["curl", "git"]))
    assert not any(line.startswith("apt-get") for line in agent.systemd.log())
    (agent.systemd.state / "packages/git").unlink()
    assert agent.drift() == ["package git: not there -> there"]
    (agent.systemd.state / "apt-fails").touch()
    with pytest.raises(StepError, match="apt-get could not install git") as failed:
        agent.apply("base/packages", Packages(["curl", "git"]))
    assert "E: no network" in str(failed.value)


def test_dpkgs_own_list_answers_without_a_program(agent: Any) -> None:
    def write_list(**packages: str) -> None:
        stanza = "Package: {}\nStatus: {}\nVersion: 1\n"
        listed.write_text("\n".join(stanza.format(*package) for package in packages.items()))

    agent.apply("base/packages", Packages(["curl", "git"]))
    (updates := agent.path("/var/lib/dpkg/updates")).mkdir(parents=True)
    listed = agent.path("/var/lib/dpkg/status")
    write_list(curl="install ok installed", git="install ok installed")
    agent.systemd.log()
    assert agent.drift() == [] and agent.systemd.log() == []
    asked = ["dpkg-query -W -f ${Package} ${db:Status-Status}", " curl git"]
    (updates / "0001").touch()
    assert agent.drift() == [] and agent.systemd.log() == asked
    (updates / "0001").unlink()
    write_list(curl="install ok installed", git="deinstall ok config-files")
    (agent.systemd.state / "packages/git").unlink()
    assert agent.drift() == ["package git: not there -> there"] and agent.systemd.log() == asked


def test_packages_wait_for_a_network_until_their_deadline(agent: Any) -> None:
    agent.systemd.program("ip", "#!/bin/sh\n", ready=True)
    with pytest.raises(StepError, match="no network after 1 s"):
        agent.apply("base/packages", Packages(["curl"], network_deadline=1))
    assert agent.check() == {}, "nothing was changed"


# program, model, prune


def test_program(agent: Any) -> None:
    assert agent.apply("stt/program", _program(agent)) == {"installed": "tool-1"}
    assert agent.apply("stt/program", _program(agent)) == {} and agent.drift() == []
    tool = agent.path("/opt/incus-stt/tool-1/bin/tool")
    tool.write_text("changed")
    assert agent.drift() == ["/opt/incus-stt/tool-1: changed: bin/tool -> as made"]
    with pytest.raises(StepError, match="false failed"):
        agent.apply("stt/program", _program(agent, "tool-1", Run(["false"])))
    assert tool.read_text() == "changed", "the one before came back"
    assert agent.leftovers() != [] and "not finished" in agent.drift()[-1]
    agent.apply("stt/program", _program(agent))
    assert tool.read_text() == "tool-1\n" and agent.drift() == [] and agent.leftovers() == []
    agent.remove("stt/program")
    assert agent.tree().keys() == {"var/lib/incus-stt/steps/paths.list"}


def test_a_program_without_what_it_requires_is_none(agent: Any) -> None:
    spec = Program("/opt/incus-stt/x", "x", [Run(["true"])], requires="bin/x", failure="No bin/x.")
    with pytest.raises(StepError, match=r"No bin/x\."):
        agent.apply("stt/program", spec)
    assert not agent.path("/opt/incus-stt/x").exists()


def test_a_program_stays_as_long_as_any_record_names_it(agent: Any) -> None:
    old = agent.path("/opt/incus-stt/tool-1")
    agent.apply("stt/program", _program(agent))
    tool = {"TOOL": "/opt/incus-stt/tool-1/bin/tool"}
    user = RunStep(["true"], environment=tool, values={"key": SECRET})
    agent.apply("stt/user", user, secret=True)  # its record has no spec
    agent.apply("stt/program", _program(agent, "tool-2"))
    assert old.exists()
    strange = agent.path("/var/lib/incus-stt/steps/strange.json")
    strange.write_text('{"version": 9, "uses": "/opt/incus-stt/tool-1"}')
    agent.remove("stt/user")
    assert old.exists(), "a record that this agent cannot read names it"
    strange.unlink()
    agent.apply("stt/program", _program(agent, "tool-2"))
    assert not old.exists() and agent.path("/opt/incus-stt/tool-2").exists()


def test_a_program_with_a_name_that_json_escapes_is_kept(agent: Any) -> None:
    agent.apply("stt/program", _program(agent, "wörter"))
    assert agent.path("/opt/incus-stt/wörter/bin/tool").exists() and agent.drift() == []


def test_a_program_that_a_step_works_on_is_not_collected(agent: Any) -> None:
    agent.apply("stt/program", _program(agent))
    other = agent.machine
    with other.lock("/opt/incus-stt/tool-1"):
        agent.apply("stt/program", _program(agent, "tool-2"))
        assert agent.path("/opt/incus-stt/tool-1").exists()
    agent.apply("stt/program", _program(agent, "tool-2"))
    assert not agent.path("/opt/incus-stt/tool-1").exists()


def test_a_program_that_is_recorded_meanwhile_is_not_collected(
    agent: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent.apply("stt/program", _program(agent))
    record = agent.path("/var/lib/incus-stt/steps/other.json")
    lock = Machine.lock

    def lock_late(self: Machine, name: str, **more: Any) -> Any:
        if name == "/opt/incus-stt/tool-1":  # another run had it, and has finished
            record.write_text('{"uses": "/opt/incus-stt/tool-1"}')
        return lock(self, name, **more)

    monkeypatch.setattr(Machine, "lock", lock_late)
    agent.apply("stt/program", _program(agent, "tool-2"))
    assert record.exists() and agent.path("/opt/incus-stt/tool-1").exists()


def _model(agent: Any, *, load: str = "true", name: str = "small") -> Model:
    place = agent.path(f"/srv/models/{name}")
    fetch = Run(["sh", "-c", f"mkdir -p {place} && echo once >>{place}/weights"])
    return Model(name, f"/srv/models/{name}", Run([load]), [fetch], agent.owner)


def test_model(agent: Any) -> None:
    said = agent.apply("stt/model", _model(agent))
    assert said["model"] == "small" and set(said["took"]) == {"fetch", "check"}
    agent.apply("stt/model", _model(agent))
    weights = agent.path("/srv/models/small/weights")
    assert weights.read_text() == "once\n" and agent.drift() == []
    with pytest.raises(StepError, match="false failed"):
        agent.apply("stt/model", _model(agent, load="false"))
    assert agent.drift() == [], "it was loaded to see; nothing was changed"
    weights.write_text("broken")
    assert agent.drift() == ["/srv/models/small: changed: weights -> as made"]
    agent.apply("stt/model", _model(agent))
    assert weights.read_text() == "once\n" and agent.drift() == []
    agent.remove("stt/model")
    assert weights.exists(), "what was fetched stays"


@pytest.fixture
def beside(agent: Any, tmp_path: Path) -> Machine:
    """Another machine, which has the same volume."""
    volume = agent.path("/srv/models")
    volume.mkdir(parents=True)
    other = tmp_path / "beside"
    (other / "srv").mkdir(parents=True)
    (other / "srv" / "models").symlink_to(volume)
    return Machine(other)


def test_machines_that_share_a_volume_fetch_a_model_once(agent: Any, beside: Machine) -> None:
    place = agent.path("/srv/models/small")
    fetch = Run(["sh", "-c", f"sleep 0.5; mkdir -p {place}; echo once >>{place}/weights"])
    text = json.dumps({"kind": "model", "spec": encode(replace(_model(agent), fetch=[fetch]))})
    with ThreadPoolExecutor() as pool:
        for done in [
            pool.submit(cli.apply, machine, "stt/model", "stack-1", text)
            for machine in (agent.machine, beside)
        ]:
            assert done.result()["model"] == "small"
    assert agent.path("/srv/models/small/weights").read_text() == "once\n"
    assert agent.drift() == []


def test_machines_that_share_a_volume_take_an_upload_one_after_the_other(
    agent: Any, beside: Machine, archive: Callable[[dict[str, str]], bytes]
) -> None:
    spec = Upload("/srv/models/stt/digits", owner=agent.owner, keep=True)
    text = json.dumps({"kind": "upload", "spec": encode(spec)})
    payload = archive({"weights": "w" * 5000})
    agent.path("/srv/models/stt").mkdir()
    ours, theirs = os.pipe()
    beside.__dict__["stdin"] = os.fdopen(ours, "rb")
    with ThreadPoolExecutor() as pool, os.fdopen(theirs, "wb") as sender:
        sender.write(payload[:3000])
        sender.flush()
        first = pool.submit(cli.apply, beside, "stt/files", "stack-1", text)
        while not agent.path("/srv/models/stt/digits.part").exists():
            assert not first.done()
        second = pool.submit(agent.apply, "stt/files", spec, payload=payload)
        with pytest.raises(TimeoutError):
            second.result(0.3)
        sender.write(payload[3000:])
        sender.close()
        first.result()
        second.result()
    assert agent.path("/srv/models/stt/digits/weights").read_text() == "w" * 5000
    assert agent.drift() == []


def test_machines_that_share_a_volume_prune_it_one_after_the_other(agent: Any) -> None:
    volume = agent.path("/srv/models")
    (volume / "old").mkdir(parents=True)
    other = os.open(volume / VOLUME_LOCK, os.O_RDWR | os.O_CREAT)
    fcntl.flock(other, fcntl.LOCK_EX)
    with ThreadPoolExecutor() as pool:
        pruned = pool.submit(agent.apply, "stt/prune", Prune(["/srv/models/*"], []))
        with pytest.raises(TimeoutError):
            pruned.result(0.3)
        assert (volume / "old").exists()
        os.close(other)
        assert pruned.result() == {"removed": [str(volume / "old")]}


def test_a_model_says_how_much_it_downloads(agent: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        agent.apply("stt/model", replace(_model(agent), download=1618))
    assert capsys.readouterr().err == "downloading small: 1.6 GB\n"


def test_what_cannot_be_fetched_is_no_drift_of_what_runs(agent: Any) -> None:
    agent.apply("stt/model", _model(agent))
    agent.apply("stt/program", _program(agent))
    with pytest.raises(StepError, match="false failed"):
        agent.apply(
            "stt/model", Model("big", "/srv/models/big", Run(["true"]), [Run(["false"])], "a:a")
        )
    with pytest.raises(StepError, match="false failed"):
        agent.apply("stt/program", _program(agent, "tool-2", Run(["false"])))
    assert agent.drift() == []


def test_prune_keeps_what_is_used_and_what_is_worked_on(agent: Any) -> None:
    for name in ("used", "old", "busy"):
        agent.path(f"/srv/models/{name}").mkdir(parents=True)
    agent.path("/srv/models/file").touch()
    other = agent.machine
    with other.lock("/srv/models/busy"):
        agent.apply("stt/prune", Prune(["/srv/models/*"], ["/srv/models/used"]))
    assert sorted(os.listdir(agent.path("/srv/models"))) == [VOLUME_LOCK, "busy", "file", "used"]


# upload


def _packed(files: dict[str, str], kind: bytes = tarfile.REGTYPE) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w|") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            member.size = len(text) if kind == tarfile.REGTYPE else 0
            tar.addfile(member, io.BytesIO(text.encode()))
    return made.getvalue()


def test_upload(agent: Any, archive: Callable[[dict[str, str]], bytes]) -> None:
    spec = Upload("/opt/incus-stt/up", subdirectory="package", owner=agent.owner)
    payload = archive({"a.py": "a", "inner/b.py": "b"})
    agent.apply("stt/upload", spec, payload=payload)
    inner = agent.path("/opt/incus-stt/up/package/inner/b.py")
    assert inner.read_text() == "b" and inner.stat().st_mode & 0o777 == 0o644
    agent.apply("stt/upload", spec, payload=b"not looked at")
    assert agent.drift() == []
    inner.write_text("changed")
    assert agent.drift() == ["/opt/incus-stt/up: changed: package/inner/b.py -> as made"]
    agent.apply("stt/upload", spec, payload=payload)
    assert agent.drift() == [] and inner.read_text() == "b"


@pytest.mark.parametrize("blocks", [0, 1, 2, 3, 4, 5, 6, 7])
def test_an_upload_that_ends_too_early_is_not_taken(
    agent: Any, archive: Callable[[dict[str, str]], bytes], blocks: int
) -> None:
    """Also between two files, where Python's tarfile sees the end of the archive."""
    whole = archive({"a": "a" * 512, "b": "b" * 512, "c": "c" * 1024})
    for payload in (whole[: 512 * blocks], whole[: 512 * blocks + 100]):
        with pytest.raises(StepError, match="did not arrive whole"):
            agent.apply(
                "stt/upload", Upload("/opt/incus-stt/up", owner=agent.owner), payload=payload
            )
    assert not agent.path("/opt/incus-stt/up").exists() and agent.check() == {}
    assert agent.leftovers() == []


def test_a_run_that_changes_nothing_does_not_end_one_that_was_cut_off(
    agent: Any, archive: Callable[[dict[str, str]], bytes]
) -> None:
    spec = Upload("/opt/incus-stt/up", owner=agent.owner)
    payload = archive({"a": "a"})
    number = 0
    while not agent.check():
        number += 1
        agent.cut(number, lambda: agent.apply("stt/upload", spec, payload=payload))
    with pytest.raises(StepError, match="did not arrive whole"):
        agent.apply("stt/upload", spec, payload=payload[:600])
    assert agent.check() == {"stt/upload": ["last change: not finished -> finished"]}
    agent.apply("stt/upload", spec, payload=payload)
    assert agent.drift() == []


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (_packed({"../../etc/evil": "x"}), "not below the destination"),
        (_packed({"/etc/evil": "x"}), "not below the destination"),
        (_packed({"link": ""}, tarfile.SYMTYPE), ""),
        (_packed({"pipe": ""}, tarfile.FIFOTYPE), "neither a file nor a directory"),
        (b"no archive at all" * 100, ""),
    ],
)
def test_an_upload_with_anything_else_is_refused(agent: Any, payload: bytes, why: str) -> None:
    before = agent.tree()
    with pytest.raises(StepError, match=f"did not arrive whole.*{why}"):
        agent.apply("stt/upload", Upload("/opt/incus-stt/up", owner=agent.owner), payload=payload)
    names = {name for name in agent.tree() if name != "var/lib/incus-stt/steps/paths.list"}
    assert names == set(before) and not agent.path("/opt/incus-stt/up").exists()


def test_an_uploaded_file(agent: Any, archive: Callable[[dict[str, str]], bytes]) -> None:
    spec = Upload("/opt/incus-stt/x.wav", directory=False, owner=agent.owner)
    agent.apply("stt/recording", spec, payload=archive({"x.wav": "riff"}))
    assert agent.path("/opt/incus-stt/x.wav").read_text() == "riff" and agent.drift() == []
    with pytest.raises(StepError, match="does not hold one file"):
        agent.apply("x", Upload("/y", directory=False), payload=archive({"a": "", "b": ""}))
    agent.remove("stt/recording")
    assert not any(name.startswith("opt") for name in agent.tree())


# certificates


def test_certificates(agent: Any) -> None:
    agent.path("/usr/sbin").mkdir(parents=True)
    agent.path("/usr/sbin/update-ca-certificates").touch()
    one, two = CERTIFICATE.format("one"), CERTIFICATE.format("two")
    agent.apply("base/certificates", Certificates(f"# mine\n{one}{two}"))
    files = [agent.path(f"{DIRECTORY}/stt-caBundle-{number}.crt") for number in (1, 2)]
    assert [file.read_text() for file in files] == [one, two] and agent.drift() == []
    assert "update-ca-certificates " in agent.systemd.log()
    agent.apply("base/certificates", Certificates(two))
    assert files[0].read_text() == two and not files[1].exists() and agent.drift() == []
    files[0].write_text(one)
    files[1].write_text(one)
    assert agent.drift() == [
        f"{DIRECTORY}/stt-caBundle-1.crt: another certificate -> as written",
        "stt-caBundle-2.crt: there -> not there",
    ]
    agent.remove("base/certificates")
    assert not any(file.exists() for file in files)


# transcription


def _transcription(agent: Any, **more: Any) -> Transcription:
    given = {
        "device": "cuda",
        "evidence": Evidence(f"{agent.systemd.url}/gpu"),
        "header_file": "/key",
        **more,
    }
    return Transcription(
        "http://stt/v1", "m", "/r.wav", 3.0, unit="engine", engine="Engine", deadline=9, **given
    )


def _curl(
    agent: Any, body: str, status: int = 200, code: int = 0, connected: str = "0.000431"
) -> None:
    agent.systemd.program(
        "curl",
        f"#!/bin/sh\necho \"curl $*\" >>'{agent.systemd.state}/log'\n"
        f"printf '%s\\n{status} {connected}' '{body}'\nexit {code}\n",
        ready=True,
    )


def test_transcription(agent: Any) -> None:
    _curl(agent, '{"text": " one\\ntwo "}')
    said = agent.apply("stt/verify", _transcription(agent, device="cpu"))
    assert said["text"] == "one\ntwo" and said["real_time_factor"] >= 0
    line = " ".join(agent.systemd.log())
    assert f"-H @{agent.root}/key" in line and "--max-time 9" in line
    assert agent.leftovers() == [] and agent.drift() == []
    agent.apply("stt/verify", _transcription(agent, device="cpu", header_file=""))
    assert "-H" not in agent.systemd.log()[-1]


def test_the_words_have_to_come_back(agent: Any) -> None:
    wanted = {"device": "cpu", "words": "one two three", "error_rate": 0.34}
    for text, rate in (("One, two - three.", 0.0), ("1 2 3", 0.0), ("one two tree", 0.333)):
        _curl(agent, json.dumps({"text": text}))
        said = agent.apply("stt/verify", _transcription(agent, **wanted))
        assert (said["proven"], said["word_error_rate"]) == (True, rate)
    _curl(agent, '{"text": "Thank you for watching!"}')
    with pytest.raises(StepError, match=r" as .Thank you.* rate of 1\.333, and 0\.34"):
        agent.apply("stt/verify", _transcription(agent, **wanted))
    said = agent.apply("stt/verify", _transcription(agent, device="cpu"))
    assert said["proven"] is False and "word_error_rate" not in said


@pytest.mark.parametrize(
    ("said", "heard", "rate"),
    [
        ("", "", 0.0),
        ("a b c d", "a b c d", 0.0),
        ("a b c d", "b c d", 0.25),
        ("a b c d", "a x b c d", 0.25),
        ("a b c d", "a x c d", 0.25),
        ("a b", "", 1.0),
        ("two zero two six", "2026", 0.0),
        ("c'est l'été", "C'EST L'ÉTÉ!", 0.0),
        ("Grüße, Welt", "grüsse welt", 0.0),
        ("один два", "Один, два.", 0.0),
        # Another way to write the same.
        ("cafe\u0301 noir", "caf\u00e9 noir", 0.0),
        ("l'eau", "l\u2019eau", 0.0),
        ("m'ap pale", "m\u02bcap pale", 0.0),
        ("\uff2f\uff2b go", "ok go", 0.0),
        ("one \u2764\ufe0f two", "one two", 0.0),
        ("nai\u0308ve\u00adte", "na\u00efvete", 0.0),
        # Numbers.
        ("ten", "10", 0.0),
        ("10", "ten", 0.0),
        ("one zero", "10", 0.0),
        ("eleven twenty forty-two", "11, 20, 42", 0.0),
        ("\u0967 \u0968", "1 2", 0.0),
        ("ten", "11", 1.0),
        ("ten", "100", 3.0),
        ("un deux trois", "1, 2, 3", 1.0),
        # Marks are a part of a word.
        ("नमस्ते दुनिया", "नमस्ते, दुनिया।", 0.0),
        ("नमस्ते दुनिया", "नमस्ते दुनियो", 0.5),
        ("안녕하세요 세계", "안녕하세요 나무", 0.5),
        # Without spaces: by characters.
        ("你好世界", "你好\uff0c世界\u3002", 0.0),
        ("你好世界", "你好,世界。", 0.0),
        ("你好 世界", "你好世界", 0.0),
        ("今天天气很好", "今天天氣很好", round(1 / 6, 3)),
        ("你好世界", "谢谢观看", 1.0),
        ("コーヒーです", "ｺｰﾋｰです。", 0.0),
        ("ありがとう", "さようなら", 1.0),
        ("สวัสดีครับ", "สวัสดี ครับ", 0.0),
        ("สวัสดีครับ", "ลาก่อน", 1.0),
        ("ສະບາຍດີ", "ສະບາຍ ດີ", 0.0),
        ("សួស្តី ពិភពលោក", "សួស្តីពិភពលោក។", 0.0),
        ("မင်္ဂလာပါ", "မင်္ဂလာ ပါ။", 0.0),
        ("我用iPhone", "我用 iphone。", 0.0),
        ("我用iPhone", "我用 android", round(1 / 3, 3)),
    ],
)
def test_the_word_error_rate(said: str, heard: str, rate: float) -> None:
    assert round(word_error_rate(said, heard), 3) == rate


@pytest.mark.parametrize(
    ("body", "status", "code", "why"),
    [
        ('{"text": " "}', 200, 0, "returned no text"),
        ('{"text": "one"}', 200, 0, "runs on the CPU and not on the GPU"),
        ("no key", 401, 0, "HTTP status 401"),
        ("not json", 200, 0, "HTTP status 200"),
        ("", 0, 7, "does not answer"),
    ],
)
def test_a_transcription_that_proves_nothing(
    agent: Any, body: str, status: int, code: int, why: str
) -> None:
    _curl(agent, body, status, code)
    with pytest.raises(StepError, match=why):
        agent.apply("stt/verify", _transcription(agent))


@pytest.mark.parametrize(("status", "code"), [(429, 0), (503, 0), (0, 60)])
def test_a_gateway_has_to_see_first_what_is_new(agent: Any, status: int, code: int) -> None:
    """That a server works, or that there is another certificate."""
    mark = agent.systemd.state / "asked"
    agent.systemd.program(
        "curl",
        f"#!/bin/sh\nif [ -e {mark} ]; then printf '%s\\n200' '{{\"text\": \"one\"}}'\n"
        f"else : >{mark}; printf 'none\\n{status}'; exit {code}; fi\n",
        ready=True,
    )
    with pytest.raises(StepError, match=r"HTTP status (429|503)|does not answer"):
        agent.apply("stt/verify", _transcription(agent, device=""))
    mark.unlink()
    said = agent.apply("stt/verify", _transcription(agent, device="", patience=30))
    assert said["text"] == "one"


@pytest.mark.parametrize(
    ("status", "code", "header", "why", "todo"),
    [
        (401, 0, "/key", "refuses this stack's key (HTTP status 401)", "stt:apiKey to one value"),
        (401, 0, "", "asks for a key (HTTP status 401), and this stack has none", "in both stacks"),
        (0, 7, "/key", "does not answer", "one of stt:gateway.servers"),
        (404, 0, "/key", "HTTP status 404", "one of stt:gateway.servers"),
    ],
)
def test_a_server_elsewhere_is_named_with_what_is_wrong(
    agent: Any, status: int, code: int, header: str, why: str, todo: str
) -> None:
    _curl(agent, "no", status, code)
    server = replace(
        _transcription(agent, device="", header_file=header),
        url="http://192.168.1.20:8000/v1",
        elsewhere=True,
    )
    with pytest.raises(StepError) as caught:
        agent.apply("stt/server", server)
    assert "http://192.168.1.20:8000/v1" in caught.value.brief and why in caught.value.brief
    assert todo in caught.value.resolution and "journalctl" not in caught.value.resolution
    assert "--connect-timeout 5 " in agent.systemd.log()[-1]


@pytest.mark.parametrize(
    ("code", "connected", "tries"),
    [(28, "0.000000", 2), (28, "0.000431", 1), (7, "0.000000", 1)],
)
def test_a_server_elsewhere_gets_a_connection_of_its_own_for_each_try(
    agent: Any, monkeypatch: pytest.MonkeyPatch, code: int, connected: str, tries: int
) -> None:
    """Where none was accepted in time; what was sent is not sent again."""
    clock = SimpleNamespace(monotonic=time.monotonic, sleep=id)
    monkeypatch.setattr(transcription, "time", clock)
    _curl(agent, "", 0, code, connected)
    server = replace(_transcription(agent, device=""), elsewhere=True)
    with pytest.raises(StepError, match="does not answer"):
        agent.apply("stt/server", server)
    assert sum("curl" in line for line in agent.systemd.log()) == tries


@pytest.mark.parametrize(
    ("status", "code", "why", "todo"),
    [
        (401, 0, "ai-2/stt refuses this stack's key at http://", "Run make up again"),
        (0, 7, "does not answer", "where ai-2/stt is published. Check whether that machine runs"),
        (404, 0, "HTTP status 404", "global.members has the right addresses"),
    ],
)
def test_a_server_on_another_member_is_named_by_its_machine(
    agent: Any, status: int, code: int, why: str, todo: str
) -> None:
    """No setting has it, so none is blamed."""
    _curl(agent, "no", status, code)
    server = replace(
        _transcription(agent, device="", header_file="/key"),
        url="http://192.168.1.12:8000/v1",
        elsewhere=True,
        published_by="ai-2/stt",
    )
    with pytest.raises(StepError) as caught:
        agent.apply("stt/server", server)
    assert why in caught.value.brief and todo in caught.value.resolution
    assert "stt:" not in caught.value.resolution


def test_a_name_is_asked_at_the_address_of_the_machine(agent: Any) -> None:
    """No name server has to know it: curl is told where it is, and what to trust."""
    _curl(agent, '{"text": "one"}')
    verify = replace(_transcription(agent, device=""), url="https://10.0.0.1:8000/v1")
    agent.apply("stt/verify", replace(verify, certificate="/ca", name="stt.test"))
    line = " ".join(agent.systemd.log())
    assert f"--cacert {agent.root}/ca --connect-to stt.test:8000:10.0.0.1:8000 " in line
    assert line.endswith(" https://stt.test:8000/v1/audio/transcriptions")
    agent.apply("stt/verify", replace(verify, certificate="/ca"))
    line = agent.systemd.log()[-1]
    assert "--connect-to" not in line
    assert line.endswith(f"--cacert {agent.root}/ca https://10.0.0.1:8000/v1/audio/transcriptions")


def test_what_the_journal_says_of_the_device(agent: Any) -> None:
    _curl(agent, '{"text": "one"}')
    (agent.systemd.state / "journal").write_text("device=cpu type=x\ndevice=cuda type=int8\n")
    evidence = Evidence(unit="engine", pattern=r"device=(\w+) type=(\w+)")
    said = agent.apply("stt/verify", _transcription(agent, evidence=evidence))
    assert said["device"] == "cuda" and said["compute_type"] == "int8"


# actions


def test_a_download_goes_on_or_starts_anew_and_is_checked(
    agent: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    agent.systemd.program(
        "curl",
        "#!/bin/sh\nfor last; do :; done\ncase $last in\n"
        "--head) printf 'Content-Length: 3\\r\\n\\r\\nContent-Length: 1600000000\\r\\n';;\n"
        "*sums) printf foo | sha256sum | sed s,-,./x.zst,;;\n"
        "*) while [ $1 != --output ]; do shift; done\n"
        "   [ ! -e $2 ] || exit 33\n   printf foo >$2;;\nesac\n",
        ready=True,
    )
    part = agent.path("/var/cache/x.zst")
    part.parent.mkdir(parents=True)
    part.write_text("f")
    Download("http://x/x.zst", "/var/cache/x.zst", "http://x/sums").do(agent.machine)
    assert "downloading http://x/x.zst: 1.6 GB" in capsys.readouterr().err
    assert part.read_text() == "foo"
    with pytest.raises(StepError, match="published checksum"):
        Download("http://x/y.zst", "/var/cache/x.zst", "http://x/sums").do(agent.machine)
    assert not part.exists()


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_a_download_that_is_another_file_is_refused(agent: Any) -> None:
    """The lock's sum comes before what the same site says of itself."""
    agent.systemd.program(
        "curl",
        "#!/bin/sh\nfor last; do :; done\ncase $last in\n"
        "*sums) echo asked >&2; exit 1;;\n--head) ;;\n"
        "*) while [ $1 != --output ]; do shift; done\n   printf foo >$2;;\nesac\n",
        ready=True,
    )
    place = agent.path("/var/cache/x.zst")
    words = ("http://mirror/x.zst", "/var/cache/x.zst", "http://mirror/sums")
    Download(*words, sums={"x.zst": _sha256("foo"), "y.zst": _sha256("y")}).do(agent.machine)
    assert place.read_text() == "foo"
    with pytest.raises(StepError) as error:
        Download(*words, sums={"x.zst": _sha256("bar")}).do(agent.machine)
    assert f"SHA-256 {_sha256('foo')}" in str(error.value) and _sha256("bar") in str(error.value)
    assert "artifacts.lock" in str(error.value) and "make lock" in str(error.value)
    assert not place.exists()


def test_what_a_program_fetched_is_verified(agent: Any) -> None:
    """As the model hub's cache has it: links to files that are called by their sums."""
    blob, snapshot = agent.path("/srv/hub/blobs/b1"), agent.path("/srv/hub/snapshots/r1")
    blob.parent.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    blob.write_text("weights")
    (snapshot / "model.bin").symlink_to("../../blobs/b1")
    (snapshot / "config.json").write_text("{}")
    sums = {"model.bin": _sha256("weights"), "config.json": _sha256("{}"), "other": _sha256("")}
    Verify("/srv/hub/snapshots/*", sums).do(agent.machine)
    Verify("/srv/none/*", sums).do(agent.machine)
    blob.write_text("WEIGHTS")
    with pytest.raises(StepError, match=r"model\.bin has the SHA-256 .*it was removed"):
        Verify("/srv/hub/snapshots/*", sums).do(agent.machine)
    # Both: the hub's client would take the file for fetched.
    assert not blob.exists() and not os.path.lexists(snapshot / "model.bin")
    assert (snapshot / "config.json").exists()


def test_a_model_that_is_another_one_is_fetched_again(agent: Any) -> None:
    """It is not sealed, and nothing is loaded from it."""
    place = "/srv/models/small"
    fetch = Run(["sh", "-c", f"mkdir -p {agent.path(place)}; echo bad >{agent.path(place)}/w"])
    spec = replace(_model(agent), fetch=[fetch, Verify(place, {"w": _sha256("good\n")})])
    with pytest.raises(StepError, match="w has the SHA-256"):
        agent.apply("stt/model", spec)
    good = replace(
        spec, fetch=[Run(["sh", "-c", f"echo good >{agent.path(place)}/w"]), spec.fetch[1]]
    )
    agent.apply("stt/model", good)
    assert agent.path(f"{place}/w").read_text() == "good\n" and agent.drift() == []


def test_archives(agent: Any) -> None:
    member = zipfile.ZipInfo("bin/tool")
    member.external_attr = 0o100755 << 16
    with zipfile.ZipFile(agent.path("/x.zip"), "w") as made:
        made.writestr(member, "tool")
    Unpack("/x.zip", "/opt/x", cleanup=True).do(agent.machine)
    assert agent.path("/opt/x/bin/tool").stat().st_mode & 0o111
    assert not agent.path("/x.zip").exists()
    agent.path("/x.tar").write_bytes(_packed({"top/a": "a"}))
    Unpack("/x.tar", "/opt/y", single=True).do(agent.machine)
    assert agent.path("/opt/y/a").read_text() == "a"
    agent.path("/x.tar").write_bytes(_packed({"top/a": "a", "more/b": "b"}))
    with pytest.raises(StepError, match="one directory"):
        Unpack("/x.tar", "/opt/y", single=True).do(agent.machine)
    agent.path("/x.tar").write_bytes(b"nothing")
    with pytest.raises(StepError, match="damaged, or the disk is full"):
        Unpack("/x.tar", "/opt/y", single=True, cleanup=True).do(agent.machine)
    assert not agent.path("/x.tar").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
def test_what_others_wrote_is_not_run_as_root() -> None:
    """Nor does it leave anything behind that works on once the files are root's."""
    daemon = pwd.getpwnam("daemon")
    with tempfile.TemporaryDirectory() as name:  # it cannot get into pytest's own
        root = Path(name)
        root.chmod(0o755)
        (root / "program").mkdir()
        (root / "program/setup.py").touch()
        script = """
            id -u; id -G; echo "$HOME $MORE"; awk '/CapEff|NoNewPrivs/ {print $2}' /proc/self/status
            setsid sh -c 'for i in $(seq 100); do echo more; sleep 0.1; done' >late 2>&1 &
            cp /bin/true tool; chmod 4755 tool
            touch /etc/incus-stt-test
        """
        run = Run(
            ["sh", "-c", f"{{ {script} }} >said 2>&1; [ -s late ] || sleep 1"],
            directory="/program",
            environment={"MORE": "more"},
        )
        failing = Run(["sh", "-c", "echo why >&2; exit 3"], failure="It could not be built.")
        Build("daemon", "/program", [run]).do(Machine(root))
        late = (root / "program/late").read_text()
        said = (root / "program/said").read_text().splitlines()
        ids, refused = [str(daemon.pw_uid), str(daemon.pw_gid)], said.pop()
        assert said == [*ids, f"{daemon.pw_dir} more", "0" * 16, "1"]
        assert refused.endswith("Permission denied")
        for file in ("program", "program/setup.py", "program/tool", "program/late"):
            status = (root / file).lstat()
            assert (status.st_uid, status.st_gid, status.st_mode & 0o7000) == (0, 0, 0)
        with pytest.raises(StepError, match=r"why\nIt could not be built\."):
            Build("daemon", "/program", [failing]).do(Machine(root))
        time.sleep(0.3)
        assert (root / "program/late").read_text() == late
        with pytest.raises(StepError, match="no user nowhere"):
            Build("nowhere", "/program", []).do(Machine(root))


def test_links_and_commits(agent: Any, tmp_path: Path) -> None:
    agent.path("/lib").mkdir()
    agent.path("/lib/a.so").touch()
    for _ in range(2):
        Link("/lib/*.so", "/all").do(agent.machine)
    assert agent.path("/all/a.so").is_symlink()
    git = f"git -C {tmp_path} -c user.name=x -c user.email=x@x"
    os.system(f"git init -q {tmp_path} && {git} commit -q --allow-empty -m x && {git} tag v1")
    commit = os.popen(f"{git} rev-parse HEAD").read().strip()
    for _ in range(2):
        Git(str(tmp_path), "refs/tags/v1", commit, "/opt/source").do(agent.machine)
    assert agent.path("/opt/source/.git").is_dir()
    with pytest.raises(StepError, match="expected 0123"):
        Git(str(tmp_path), "refs/tags/v1", "0123", "/opt/source").do(agent.machine)
    with pytest.raises(StepError, match="Not there"):
        Git(str(tmp_path), "v2", commit, "/opt/source", failure="Not there.").do(agent.machine)
