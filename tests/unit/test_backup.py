"""What goes into an archive and comes out of it, without a host."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from backup import archive, files, passphrase, restore, save, state, volumes
from backup.archive import FileEntry, Manifest, Member, VolumeEntry
from backup.cli import PulumiError
from backup.files import Placed
from declaration.connection import Connection
from declaration.field_types import paths_in
from declaration.settings import parse_settings
from declaration.source_files import ROOT
from host.read import MachineState
from operations.host import OperationError
from tests.unit.values import declared

STACK_ID = "11111111-2222-3333-4444-555555555555"


def manifest(**changes: Any) -> Manifest:
    """One with nothing in it."""
    values: dict[str, Any] = {
        **{key: {} for key in ("domains", "models", "versions")},
        **{key: [] for key in ("files", "volumes", "left_out")},
    }
    about = {"stack": "home", "id": STACK_ID, "time": "2026-11-26T12:00:00+00:00", "commit": "abc"}
    return Manifest(**{**values, **about, **changes})


def written(root: Path, **changes: Any) -> Path:
    """An archive with a file ``a``."""
    (root / "a").write_text("what is in it")
    target = root / "x.incus-stt"
    archive.write(target, manifest(**changes), {"a": root / "a"})
    return target


# The archive.


def test_an_archive_comes_back_as_it_was(tmp_path: Path) -> None:
    entries = [FileEntry("stacks/Pulumi.home.yaml", 0o640, "files/x")]
    target = written(tmp_path, files=entries, volumes=[VolumeEntry("lab", "webui", "volumes/x")])
    assert target.stat().st_mode & 0o777 == 0o600
    with archive.opened(target) as source:
        assert source.manifest.files == entries
        assert source.manifest.volumes == [VolumeEntry("lab", "webui", "volumes/x")]
        [member] = source.manifest.members
        assert (member.name, member.size) == ("a", 13)
        source.extract("a", tmp_path / "b")
    assert (tmp_path / "b").read_text() == "what is in it"
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "x.incus-stt"]


def test_what_was_there_stays_where_an_archive_cannot_be_written(tmp_path: Path) -> None:
    target = tmp_path / "x.incus-stt"
    target.write_text("the last backup")
    with pytest.raises(FileNotFoundError):
        archive.write(target, manifest(), {"a": tmp_path / "nowhere"})
    assert target.read_text() == "the last backup"
    assert list(tmp_path.iterdir()) == [target]


def test_a_changed_archive_is_refused(tmp_path: Path) -> None:
    target = written(tmp_path)
    target.write_bytes(target.read_bytes().replace(b"what is in it", b"what was in it"[:13]))
    with archive.opened(target) as source, pytest.raises(OperationError, match="is damaged: a is"):
        source.extract("a", tmp_path / "b")


def test_a_cut_off_archive_is_refused(tmp_path: Path) -> None:
    target = written(tmp_path)
    with tarfile.open(target) as tar:
        start = tar.getmember("a").offset_data
    target.write_bytes(target.read_bytes()[: start + 3])
    with pytest.raises(OperationError, match="is damaged: "), archive.opened(target) as source:
        source.extract("a", tmp_path / "b")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file"),
        ("no archive", r"cannot be read: it is not an archive of `make backup`"),
        ({"format": 2, "commit": "abc"}, "has the format 2, and this version reads 1.*commit abc"),
        ({}, r"is not an archive of `make backup`"),
        ({"format": 1}, r"is not an archive of `make backup`"),
        ([], r"is not an archive of `make backup`"),
    ],
)
def test_another_file_is_refused(content: Any, said: str, tmp_path: Path) -> None:
    target = tmp_path / "x"
    if isinstance(content, str):
        target.write_text(content)
    elif content is not None:
        (tmp_path / "manifest.json").write_text(json.dumps(content))
        with tarfile.open(target, "w") as tar:
            tar.add(tmp_path / "manifest.json", "manifest.json")
    with pytest.raises(OperationError, match=said), archive.opened(target):
        pass


# The files.


def test_every_setting_that_names_a_path_is_known() -> None:
    settings = parse_settings(
        {
            "infra": "infra.mine.yml",
            "check": {"recording": "a.wav"},
            "caBundle": "ca.pem",
            "custom": {"install": "i.sh", "unit": "u.service", "files": "f"},
            "webui": {"certificate": "/etc/c.pem", "certificateKey": "/etc/k.pem"},
            "gateway": {"certificate": "/etc/g.pem", "certificateKey": "/etc/h.pem"},
            "model": "./models/mine",
        }
    )
    paths = (
        "a.wav i.sh u.service f infra.mine.yml ca.pem /etc/c.pem /etc/k.pem /etc/g.pem /etc/h.pem"
    )
    assert sorted(paths_in(settings)) == sorted(paths.split())


def test_models_are_left_out_unless_all_is_wanted(tmp_path: Path) -> None:
    (tmp_path / "ollama.tgz").touch()
    shutil.copytree(ROOT / "models" / "tiny-digits", tmp_path / "mine")
    sources = {"ollama": str(tmp_path / "ollama.tgz"), "vosk": "https://mirror.example/vosk"}
    model = str(tmp_path / "mine")
    found = declared(engine="faster-whisper", model=model, sources=sources)
    paths, left_out = files.named(found, "cpu", whole=False)
    assert paths == ["stacks/Pulumi.cpu.yaml", found.settings.infra]
    assert left_out == [model, sources["ollama"]]
    assert files.named(found, "cpu", whole=True) == ([*paths, *left_out], [])
    # Every clone has this one.
    shipped = declared(engine="faster-whisper", model="./models/tiny-digits")
    assert files.named(shipped, "cpu", whole=False) == (paths, [])


def test_files_are_collected_by_where_they_are(tmp_path: Path) -> None:
    root = tmp_path / "checkout"
    (root / "stacks").mkdir(parents=True)
    (root / "stacks" / "Pulumi.home.yaml").write_text("config: {}")
    (root / "engine" / "bin").mkdir(parents=True)
    (root / "engine" / "bin" / "run").write_text("#!/bin/sh")
    (root / "engine" / "bin" / "run").chmod(0o755)
    (tmp_path / "key.pem").write_text("a key")
    (tmp_path / "key.pem").chmod(0o400)
    paths = ["stacks/Pulumi.home.yaml", "engine", "../key.pem", str(tmp_path / "key.pem")]
    entries, contents = files.collect(root, paths)
    assert [(each.path, each.mode) for each in entries] == [
        ("stacks/Pulumi.home.yaml", (root / "stacks/Pulumi.home.yaml").stat().st_mode & 0o777),
        ("engine/bin/run", 0o755),
        (str(tmp_path / "key.pem"), 0o400),
    ]
    assert contents["files/here/engine/bin/run"].read_text() == "#!/bin/sh"
    assert f"files/elsewhere{tmp_path}/key.pem" in contents


def git(root: Path, *words: str) -> None:
    name = ("-c", "user.name=a", "-c", "user.email=a@example.com")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    command = ["git", "-C", str(root), *name, *words]
    subprocess.run(command, check=True, capture_output=True, env=environment)


def test_what_git_has_is_replaced_and_what_only_the_operator_has_is_not(tmp_path: Path) -> None:
    root, source = tmp_path / "checkout", tmp_path / "new"
    root.mkdir()
    source.write_text("the archive's")
    names = ["committed", "edited", "untracked", "same", "deep/new"]
    for name in names[:4]:
        (root / name).write_text("the archive's" if name == "same" else "another")
    git(root, "init", "-q")
    git(root, "add", "committed", "edited")
    git(root, "commit", "-qm", "first")
    (root / "edited").write_text("edited")
    placed = [Placed(source, root / name, 0o640) for name in names]
    assert files.conflicts(root, placed) == [root / "edited", root / "untracked"]
    assert files.place(placed) == [root / name for name in names if name != "same"]
    for each in placed:
        assert each.target.read_text() == "the archive's"
    assert (root / "deep" / "new").stat().st_mode & 0o777 == 0o640
    assert [path.name for path in root.iterdir() if path.name.startswith(".restore")] == []


def test_a_stack_gets_the_name_that_it_is_given_here(tmp_path: Path) -> None:
    def target(path: str, stack: str) -> Path:
        return files.target_of(tmp_path, FileEntry(path, 0o644, "x"), "home", stack)

    mine = "stacks/Pulumi.home.yaml"
    assert target(mine, "home") == tmp_path / mine
    assert target(mine, "away") == tmp_path / "stacks/Pulumi.away.yaml"
    assert target("/etc/k.pem", "away") == Path("/etc/k.pem")
    with pytest.raises(OperationError, match="no backup writes"):
        target("../../etc/passwd", "home")


# The state.


def resource(kind: str, name: str, stack: str = "home", **more: Any) -> dict[str, Any]:
    urn = f"urn:pulumi:{stack}::stt::{kind}::{name}"
    return {"urn": urn, "type": kind, "parent": root_of(stack), **more}


def root_of(stack: str) -> str:
    return f"urn:pulumi:{stack}::stt::pulumi:pulumi:Stack::stt-{stack}"


def command(name: str, stack: str = "home", *triggers: str, stdout: str = "") -> dict[str, Any]:
    kind = "command:local:Command"
    values = {"inputs": {"triggers": ["local", *triggers]}, "outputs": {"stdout": stdout}}
    return resource(kind, name, stack, **values)


def exported(stack: str = "home") -> dict[str, Any]:
    return {
        "version": 3,
        "deployment": {
            "secrets_providers": {"type": "passphrase", "state": {"salt": "v1:x"}},
            "pending_operations": [{}],
            "resources": [
                {
                    "urn": root_of(stack),
                    "type": "pulumi:pulumi:Stack",
                    "outputs": {"stt_url": "http://10.120.0.1:8000/v1"},
                },
                resource("pulumi:providers:command", "default", stack),
                command("stack/id", stack, "id-1", stdout=STACK_ID),
                command("stt_server/key", stack, "key-1", stdout="encrypted"),
                resource("stt:incus:Domain", "lab", stack),
                command("lab/project", stack, "project", "lab"),
                command("lab/box/stt_server/service", stack, "service"),
            ],
        },
    }


def test_what_belongs_to_no_host_is_kept() -> None:
    found = state.kept(exported(), "home", "home")
    resources = exported()["deployment"]["resources"]
    assert state.resources(found) == [{**resources[0], "outputs": {}}, *resources[1:4]]
    assert "pending_operations" not in found["deployment"]
    assert found["deployment"]["secrets_providers"]["state"] == {"salt": "v1:x"}
    assert state.stack_id(found) == STACK_ID


def test_a_kept_state_takes_another_name() -> None:
    assert state.kept(exported(), "away", "home") == state.kept(exported("away"), "away", "away")


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], list[tuple[str, str]]]:
    """Stands in for Pulumi, which has a state (None: no such stack); what it was asked to do."""
    asked: list[tuple[str, str]] = []

    def have(there: Any) -> list[tuple[str, str]]:
        def pulumi(*words: str, stdin: str = "") -> str:
            asked.append((" ".join(words), stdin))
            if words[:2] == ("stack", "export"):
                if there is None:
                    raise PulumiError("pulumi stack export: no stack named")
                return json.dumps(there)
            return ""

        monkeypatch.setattr(state, "pulumi", pulumi)
        return asked

    return have


EMPTY: dict[str, Any] = {"version": 3, "deployment": {}}


@pytest.mark.parametrize("there", [None, EMPTY])
def test_a_stack_that_is_not_there_gets_what_is_kept(
    there: Any, cli: Callable[[Any], list[tuple[str, str]]]
) -> None:
    asked = cli(there)
    assert not state.is_there(exported(), "home")
    state.import_kept(exported(), "home", "home")
    assert [words for words, _ in asked][2:-1] == ([] if there else ["stack init --no-select home"])
    words, stdin = asked[-1]
    assert words == "stack import --stack home"
    assert json.loads(stdin) == state.kept(exported(), "home", "home")


def test_a_backend_that_does_not_answer_is_no_new_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    """A built stack's state would be written over."""
    said = "pulumi stack export: could not read the state: connection refused"

    def pulumi(*_: str, stdin: str = "") -> str:
        raise PulumiError(said)

    monkeypatch.setattr(state, "pulumi", pulumi)
    for act in (
        lambda: state.is_there(exported(), "home"),
        lambda: state.import_kept(exported(), "home", "home"),
    ):
        with pytest.raises(PulumiError, match="connection refused"):
            act()


def test_the_same_stack_keeps_its_state(cli: Callable[[Any], list[tuple[str, str]]]) -> None:
    asked = cli(exported())
    assert state.is_there(exported(), "home")
    assert [words for words, _ in asked] == ["stack export --stack home"]


def test_another_stack_is_left_alone(cli: Callable[[Any], list[tuple[str, str]]]) -> None:
    theirs = json.loads(json.dumps(exported()).replace(STACK_ID, "another"))
    asked = cli(theirs)
    with pytest.raises(OperationError, match=r"another stack home already.*its id: another"):
        state.is_there(exported(), "home")
    assert len(asked) == 1


def test_a_state_that_cannot_be_saved_is_refused(
    cli: Callable[[Any], list[tuple[str, str]]],
) -> None:
    cli(None)
    with pytest.raises(OperationError, match="Is STACK=home the right one"):
        state.export("home")
    cli(EMPTY)
    with pytest.raises(OperationError, match="no state to save"):
        state.export("home")
    cloud = exported()
    cloud["deployment"]["secrets_providers"]["type"] = "cloud"
    cli(cloud)
    with pytest.raises(OperationError, match="kept by cloud, and only a passphrase"):
        state.export("home")


@pytest.fixture
def no_passphrase(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE"):
        monkeypatch.setenv(name, "")  # so that it is as before afterwards
        monkeypatch.delenv(name)


def test_the_passphrase_of_the_states_is_placed_once(tmp_path: Path, no_passphrase: None) -> None:
    state.place_passphrase(tmp_path, "theirs")
    file = tmp_path / "state" / "passphrase"
    assert file.read_text() == "theirs\n"
    assert file.stat().st_mode & 0o777 == 0o600
    assert os.environ["PULUMI_CONFIG_PASSPHRASE_FILE"] == str(file)
    assert state.current_passphrase() == "theirs"
    state.place_passphrase(tmp_path, "theirs")
    with pytest.raises(OperationError, match="have another passphrase"):
        state.place_passphrase(tmp_path, "another")
    assert file.read_text() == "theirs\n"


def test_a_passphrase_of_the_operators_is_compared(
    tmp_path: Path, no_passphrase: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "theirs")
    state.place_passphrase(tmp_path, "theirs")
    with pytest.raises(OperationError, match=r"\(PULUMI_CONFIG_PASSPHRASE\)") as error:
        state.place_passphrase(tmp_path, "the archive's")
    assert "theirs" not in str(error.value) and "the archive's)" not in str(error.value)
    assert not (tmp_path / "state").exists()


# The operator's passphrase.


def test_a_passphrase_comes_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "key"
    file.write_text("long enough a phrase\n")
    monkeypatch.setenv(passphrase.VARIABLE, str(file))
    assert passphrase.ask(new=True) == "long enough a phrase"
    file.write_text("short")
    with pytest.raises(OperationError, match="has 5 characters, and needs 12"):
        passphrase.ask(new=True)
    assert passphrase.ask(new=False) == "short"
    file.unlink()
    with pytest.raises(OperationError, match=r"BACKUP_PASSPHRASE_FILE: .*No such file"):
        passphrase.ask(new=False)


def test_a_passphrase_is_typed_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(passphrase.VARIABLE, raising=False)
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    with pytest.raises(OperationError, match="no terminal to ask at"):
        passphrase.ask(new=True)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    typed: list[str] = []
    monkeypatch.setattr("getpass.getpass", lambda _: typed.pop(0))
    typed[:] = ["long enough a phrase"] * 2
    assert passphrase.ask(new=True) == "long enough a phrase"
    typed[:] = ["long enough a phrase", "long enough a phrasé"]
    with pytest.raises(OperationError, match="differ"):
        passphrase.ask(new=True)
    typed[:] = ["any"]
    assert passphrase.ask(new=False) == "any"


#: Where the CLI may be, beside PATH.
BUILT = [str(path.parent) for path in Path.home().glob(".cache/incus-stt/pulumi-*/pulumi")]
PATH = os.pathsep.join([*BUILT, os.environ["PATH"]])


@pytest.mark.seldom
@pytest.mark.skipif(not shutil.which("pulumi", path=PATH), reason="there is no Pulumi CLI")
def test_a_seal_opens_with_its_passphrase_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", PATH)
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "of something else")
    secret = ' "quotes", é and a trailing space '
    sealed = passphrase.seal(secret, "the right passphrase")
    assert "quotes" not in sealed and "the right passphrase" not in sealed
    assert passphrase.unseal(sealed, "the right passphrase") == secret
    damaged = sealed.replace("secure: v1:", "secure: v1:AAAA")
    for text, key in ((sealed, "a wrong passphrase"), (damaged, "the right passphrase")):
        with pytest.raises(OperationError, match="not the archive's, or the archive is damaged"):
            passphrase.unseal(text, key)


# The volumes.


def test_volumes_are_those_of_the_roles_without_caches() -> None:
    found = volumes.volumes_of(declared())
    assert [(each.full_name, each.pool, each.data) for each in found] == [
        ("ai-tools/models", "default", False),
        ("ai-tools/webui", "default", True),
    ]


def test_machines_go_on_however_the_snapshots_end(tmp_path: Path) -> None:
    """The script against a client that writes down what it is asked, and fails at a snapshot."""
    client, log = tmp_path / "incus", tmp_path / "log"
    client.write_text(f'#!/bin/sh\necho "$*" >>{log}\ncase "$*" in *snapshot*) exit 3 ;; esac\n')
    client.chmod(0o755)
    found = volumes.volumes_of(declared())
    script = volumes._script(Connection("local"), found, [("ai-tools", "webui")])
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["sh", "-s"], input=script, text=True, env=environment, check=False)
    assert done.returncode == 3
    assert log.read_text().splitlines() == [
        "--project ai-tools pause webui",
        "--project ai-tools storage volume snapshot create default models incus-stt-backup --reuse "
        "--no-expiry",
        "--project ai-tools resume webui",
    ]


# The models.


class Ollama:
    """A stack with two machines that have Ollama: one answers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        machines = {name: {"roles": ["base_system", "ollama_server"]} for name in ("one", "two")}
        domain = {"trust_level": "semi-trusted", "machines": machines}
        (tmp_path / "infra.yml").write_text(yaml.safe_dump({"domains": {"lab": domain}}))
        infra = str(tmp_path / "infra.yml")
        self.declaration = declared(infra=infra, ollama={"models": ["llama3.2"]})
        answers = {"ollama_tags": {"models": [{"name": "llama3.2:latest"}, {"name": "own"}]}}

        def read(connection: Connection, project: str, name: str) -> MachineState | None:
            return MachineState({}, answers) if name == "one" else None

        monkeypatch.setattr(save, "read_machine", read)


def test_models_are_noted_as_declared_and_as_ollama_has_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = save._models(Ollama(monkeypatch, tmp_path).declaration)
    assert found["ollama"] == {
        "lab/one": ["llama3.2", "llama3.2:latest", "own"],
        "lab/two": ["llama3.2"],
    }
    assert "lab/two: Ollama does not answer" in capsys.readouterr().err
    assert save._models(declared())["stt"] == {"ai-tools/gpu-server": ["small"]}


def test_models_that_the_stack_does_not_name_are_fetched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[str, ...]] = []

    def run_program(connection: Any, machine: Any, program: Path, words: Any, **_: Any) -> str:
        asked.append((machine.name, program.name, *words))
        if "own" in words:
            raise OperationError("own: pull model manifest: file does not exist")
        return ""

    monkeypatch.setattr(restore, "run_program", run_program)
    noted = {"ollama": {"lab/one": ["llama3.2", "qwen3:4b", "own"]}}
    restore._fetch_models(manifest(models=noted), Ollama(monkeypatch, tmp_path).declaration)
    assert asked == [
        ("one", "models.py", "pull", "11434", "qwen3:4b"),
        ("one", "models.py", "pull", "11434", "own"),
    ]
    said = capsys.readouterr().err
    assert "lab/one has Ollama's model qwen3:4b again" in said
    assert "Ollama's model own could not be pulled: own: pull model manifest" in said


# Restoring.


def test_a_restore_names_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(OperationError, match="make restore FILE=…"):
        restore.restore("", "", "", "", force=False)
    target = written(tmp_path)
    with pytest.raises(OperationError, match="is not a stack name"):
        restore.restore(str(target), "../x", "", "", force=False)


def test_members_are_listed_with_their_digests(tmp_path: Path) -> None:
    with archive.opened(written(tmp_path)) as source:
        digest = archive.digest(tmp_path / "a")
        assert source.manifest.members == [Member("a", 13, digest)]
