from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import threading
import time
import types
import typing
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent import seal
from agent.actions import Action, Run, read
from agent.difference import compare_object, compare_text
from agent.files import File
from agent.kinds import kind_named, kinds
from agent.kinds.files import Files
from agent.kinds.packages import Packages
from agent.kinds.run import Run as RunStep
from agent.machine import Machine, StepError
from agent.specs import SpecError, decode, encode, field_types
from components.agent import packed

ROOT = Path(__file__).resolve().parents[2]

# specs


def _example(hint: Any, deep: bool) -> Any:
    """A value of a type; with ``deep``, every optional field has one too."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        hints = field_types(hint)
        values = {
            f.name: not f.default if f.default is True else _example(hints[f.name], deep)
            for f in dataclasses.fields(hint)
            if deep
            or (f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING)
        }
        return hint(**values)
    if origin in (typing.Union, types.UnionType):
        return _example([each for each in args if each is not types.NoneType][-1], deep)
    if origin is Mapping:
        return {"name": _example(args[1], deep)}
    if origin is not None:
        return [_example(args[0], deep)]
    if hint is object:  # an action: a check does not read them
        return {"action": "run", "argv": ["true"]}
    return {str: "text", int: 7, float: 7.5, bool: True}[hint]


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("name", sorted(kinds()))
def test_a_spec_survives_json(name: str, deep: bool) -> None:
    spec = _example(kinds()[name], deep)
    data = json.loads(json.dumps(encode(spec)))
    assert decode(kinds()[name], data) == spec
    if deep:
        assert set(data) == vars(spec).keys()
    with pytest.raises(SpecError, match="unknown key colour"):
        decode(kinds()[name], {**data, "colour": "blue"})
    assert decode(kinds()[name], {**data, "colour": "blue"}, lenient=True) == spec
    for required in [key for key in data if not deep]:
        with pytest.raises(SpecError, match=required):
            decode(kinds()[name], {key: data[key] for key in data if key != required})


@pytest.mark.parametrize("action", typing.get_args(Action), ids=lambda action: action.tag)
def test_an_action_survives_json(action: Any) -> None:
    for deep in (False, True):
        made = _example(action, deep)
        data = json.loads(json.dumps(encode(made)))
        assert [*read([data]), *read([made])] == [made, made]
    with pytest.raises(StepError, match="unknown key colour"):
        read([{**data, "colour": "blue"}])


def test_every_kind_is_found_by_its_module() -> None:
    modules = {file.stem for file in (ROOT / "agent" / "kinds").glob("[a-z]*.py")}
    assert set(kinds()) == modules - {"kind"}
    for name, cls in kinds().items():
        assert kind_named(name) is cls and cls.__module__ == f"agent.kinds.{name}"
    assert kind_named("no_such_kind") is None and kind_named("../x") is None


@pytest.mark.parametrize("name", sorted(kinds()))
def test_every_kind_that_takes_secrets_can_be_checked_without_a_spec(agent: Any, name: str) -> None:
    if kinds()[name].takes_secrets:
        assert kinds()[name].without_spec().check(agent.machine, {}) == []


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"files": [{"path": "/a"}]}, "content"),
        ({"files": [{"path": 1, "content": ""}]}, r"files\[0\].path: expected str"),
        ({"files": {}}, "expected a list"),
        ({"files": [{"path": "/a", "content": "", "mood": ""}]}, "unknown key mood"),
        ({"then": [["a", 1]]}, r"then\[0\]\[1\]: expected str"),
        ([], "expected an object"),
    ],
)
def test_a_spec_of_another_form_is_refused(change: Any, why: str) -> None:
    data = {"files": [], **change} if isinstance(change, dict) else change
    with pytest.raises(SpecError, match=why):
        decode(Files, data)


def test_a_truth_value_is_not_a_number() -> None:
    with pytest.raises(SpecError, match="deadline: expected int"):
        decode(RunStep, {"deadline": True})
    assert encode(Run(["a"])) == {"action": "run", "argv": ["a"]}


# differences


def test_lines_of_a_text() -> None:
    assert compare_text("f", "a\n", "a\n") == []
    assert [str(d) for d in compare_text("f", "a\nb\nc\n", "a\nx\nc\nd\n")] == [
        "f line: x -> b",
        "f line: d -> (no such line)",
    ]
    assert [str(d) for d in compare_text("f", "a\nb", "a\nb\n")] == [
        "f: other line ends -> as written"
    ]
    assert [str(d) for d in compare_text("f", "a", None)] == ["f: not there -> there"]


def test_what_may_be_a_secret_is_not_shown() -> None:
    [found] = compare_text("f", "x=1\nAPI_KEY=one\n", "x=1\nAPI_KEY=two\n")
    assert "one" not in str(found) and "two" not in str(found)
    [found] = compare_object({"config": {"environment.TOKEN": "a"}}, {"config": {}}, "volatile")
    assert str(found) == "config.environment.TOKEN: (another value, not shown) -> (not shown)"


def test_objects() -> None:
    wanted = {"config": {"a": 1, "b": ""}, "description": "x", "devices": {"eth0": {"mtu": "1"}}}
    found = {
        "config": {"a": "1", "volatile.x": "y", "more": "z"},
        "description": "y",
        "devices": {"eth0": {"mtu": "2"}},
    }
    assert [str(d) for d in compare_object(wanted, found, r"volatile\.")] == [
        "config.more: z -> (none)",
        "description: y -> x",
        "devices.eth0.mtu: 2 -> 1",
    ]


# seals


def test_a_seal_tells_what_was_changed(agent: Any) -> None:
    machine, place = agent.machine, agent.path("/opt/x")
    (place / "inner").mkdir(parents=True)
    (place / "inner/a").write_text("a")
    (place / os.fsdecode(b"b\xff")).write_text("b")
    target = agent.path("/usr/bin/python")
    target.parent.mkdir(parents=True)
    target.write_text("1")
    (place / "python").symlink_to(target)
    assert seal.check(machine, "/opt/x")[0].found == "not complete"
    seal.seal(machine, "/opt/x")
    assert seal.is_sealed(machine, "/opt/x") and seal.check(machine, "/opt/x") == []
    target.write_text("another of the distribution")
    (place / "__pycache__").mkdir()
    (place / "__pycache__/a.pyc").touch()
    assert seal.check(machine, "/opt/x") == []
    target.unlink()
    assert "python" in str(seal.check(machine, "/opt/x")[0])
    target.touch()
    os.utime(place / "inner/a", ns=(1, 1))
    (place / "new").touch()
    assert str(seal.check(machine, "/opt/x")[0]) == "/opt/x: changed: inner/a new -> as made"
    assert seal.was_sealed(machine, "/opt/x") and not seal.is_sealed(machine, "/opt/x")


# records


def test_the_record_of_a_step(agent: Any) -> None:
    agent.apply("base/files", Files([File("/etc/a", "a")]))
    [path] = agent.path("/var/lib/incus-stt/steps").iterdir()
    data = json.loads(path.read_text())
    assert path.stat().st_mode & 0o777 == 0o600
    assert data["step"] == "base/files" and data["stack"] == "stack-1"
    assert data["spec"] == {"files": [{"path": "/etc/a", "content": "a"}]}
    assert data["applied_at"].endswith("+00:00") and len(data["digest"]) == 32


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"', "\udcff", '{"step": 1}'])
def test_a_record_that_cannot_be_read_is_no_record(agent: Any, text: str) -> None:
    agent.apply("base/one", Files([File("/etc/a", "a")]))
    agent.apply("base/two", Files([File("/etc/b", "b")]))
    path = agent.path("/var/lib/incus-stt/steps/base%2Fone.json")
    path.write_bytes(text.encode(errors="surrogateescape"))
    assert agent.check() == {"base/two": []}, "the program finds that base/one is not applied"
    agent.apply("base/one", Files([File("/etc/a", "a")]))
    assert agent.check() == {"base/one": [], "base/two": []}


def test_one_step_that_cannot_be_checked_does_not_silence_the_others(agent: Any) -> None:
    agent.apply("base/one", Files([File("/etc/a", "a")]))
    agent.apply("base/two", Files([File("/etc/b", "b", owner=agent.owner)]))
    path = agent.path("/var/lib/incus-stt/steps/base%2Fone.json")
    for change, why in (
        ({"kind": "of_tomorrow"}, "the kind of_tomorrow is not known"),
        ({"spec": {"files": [], "colour": 1}}, "unknown key colour"),
        ({"spec": 7}, "TypeError"),
        ({"secret": True, "kind": "secret_files", "made": {"/x": 7}}, "TypeError"),
    ):
        kept = path.read_text()
        path.write_text(json.dumps({**json.loads(kept), **change}))
        said = agent.check()
        assert why in said["base/one"][0] and said["base/two"] == [], why
        path.write_text(kept)


def test_a_step_of_another_version_can_be_removed(agent: Any, capsys: Any) -> None:
    agent.apply("base/one", Files([File("/etc/a", "a")]))
    path = agent.path("/var/lib/incus-stt/steps/base%2Fone.json")
    path.write_text(path.read_text().replace('"spec": {', '"spec": {"colour": 1, '))
    agent.remove("base/one")
    assert agent.check() == {} and not agent.path("/etc/a").exists()
    agent.apply("base/one", RunStep(["true"]))
    path.write_text(path.read_text().replace('"run"', '"of_tomorrow"'))
    agent.remove("base/one")
    assert agent.check() == {} and "what it made stays" in capsys.readouterr().err


def test_check_changes_nothing(agent: Any) -> None:
    agent.apply("stt/service", agent.service("a"))
    before = agent.tree()
    agent.root.chmod(0o555)
    agent.systemd.log()
    assert agent.check() == {"stt/service": []}
    agent.root.chmod(0o755)
    assert agent.tree() == before
    assert {line.split()[1] for line in agent.systemd.log()} == {"show"}


# locks


def test_two_runs_of_a_step_follow_one_another(agent: Any) -> None:
    place = agent.path("/order")
    script = f"echo in >>{place}; sleep 0.1; echo out >>{place}"
    runs = [
        threading.Thread(target=agent.apply, args=("stt/run", RunStep(["sh", "-c", script])))
        for _ in range(3)
    ]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert place.read_text() == "in\nout\n" * 3 and agent.drift() == []


def test_what_a_run_that_was_killed_has_started_still_holds_its_lock(agent: Any) -> None:
    machine, ended = agent.machine, agent.path("/ended")
    until_ended = f"echo >{agent.root}/started; until [ -e {ended} ]; do sleep 0.1; done"
    pid = os.fork()
    if pid == 0:
        with machine.lock("x"):
            machine.run(["sh", "-c", until_ended])
        os._exit(0)
    while not agent.path("/started").exists():
        time.sleep(0.01)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    with (
        pytest.raises(StepError, match="is still working on x"),
        agent.machine.lock("x", deadline=0.5),
    ):
        raise AssertionError("two at once")
    ended.touch()
    with agent.machine.lock("x", deadline=60):
        pass


def test_locks_are_in_a_directory_of_root_and_may_nest(agent: Any) -> None:
    machine = agent.machine
    with machine.lock("/a/b"), machine.lock("/a/b"):
        pass
    assert agent.path("/run/incus-stt").stat().st_mode & 0o777 == 0o700


# programs of the machine


def test_a_program_that_is_not_there_or_fails(agent: Any) -> None:
    machine = agent.machine
    with pytest.raises(StepError, match="no-such-program cannot be run"):
        machine.run(["no-such-program"])
    with pytest.raises(StepError, match="The machine has no user no-such-user"):
        machine.run(["true"], user="no-such-user")
    with pytest.raises(StepError, match=r"sh -c echo failed with status 3|failed with status 3"):
        machine.run(["sh", "-c", "exit 3"])
    assert machine.run(["cat"], text="in").stdout == "in"


# the command line


def _pythons() -> list[str]:
    """This one, and the distribution's own, which machines have."""
    own = "/usr/bin/python3"
    found = [sys.executable]
    if os.access(own, os.X_OK):
        check = [own, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
        found += [own] if subprocess.run(check).returncode == 0 else []
    return found


*OTHERS, MACHINES_OWN = _pythons()
PYTHONS = [MACHINES_OWN, *(pytest.param(each, marks=pytest.mark.sweep) for each in OTHERS)]


def _call(python: str, file: Path, root: Path, *words: str, text: bytes = b"") -> Any:
    argv = [python, "-IS", str(file), "--root", str(root), *words]
    return subprocess.run(argv, input=text, capture_output=True, timeout=120)


@pytest.mark.parametrize("python", PYTHONS)
def test_compiled_in_its_machine_it_works_the_same(tmp_path: Path, python: str) -> None:
    file, root = tmp_path / "agent.pyz.part", tmp_path / "root"
    root.mkdir()
    file.write_bytes(packed())
    for _ in range(2):
        assert _call(python, file, root, "compile").returncode == 0
    file = file.rename(tmp_path / "agent.pyz")
    with zipfile.ZipFile(file) as made:
        names = made.namelist()
        sources = [name for name in names if name.endswith(".py")]
        assert sorted(names) == sorted([*sources, *(f"{name}c" for name in sources)])
    data = {"kind": "files", "spec": encode(Files([File("/etc/a", "a")]))}
    done = _call(python, file, root, "apply", "base/files", text=json.dumps(data).encode())
    assert done.returncode == 0 and (root / "etc/a").read_text() == "a"
    other = tmp_path / "other.pyz"
    with zipfile.ZipFile(file) as made, zipfile.ZipFile(other, "w") as copy:
        for name in names:
            copy.writestr(name, b"broken(" if name.endswith(".py") else made.read(name))
    done = _call(python, other, root, "check")
    assert json.loads(done.stdout)["steps"].keys() == {"base/files"}, "no source is read"


@pytest.fixture(scope="module")
def archive_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("packed") / "agent.pyz"
    place.write_bytes(packed())
    return place


@pytest.mark.parametrize("python", PYTHONS)
def test_the_packed_agent_works(
    archive_file: Path, tmp_path: Path, python: str, archive: Any
) -> None:
    def call(*words: str, text: bytes = b"") -> Any:
        done = _call(python, archive_file, tmp_path, *words, text=text)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    assert call("check") == {"steps": {}, "answers": {}, "salt": "", "cards": ""}
    data = {"kind": "files", "spec": encode(Files([File("/etc/ä", "ö\n")]))}
    line = json.dumps(data, ensure_ascii=False).encode()
    assert call("apply", "base/files", "--stack", "mine", text=line) == {}
    assert (tmp_path / "etc/ä").read_text() == "ö\n"
    step = call("check")["steps"]["base/files"]
    assert step["stack"] == "mine" and step["differences"] == []
    (tmp_path / "etc/ä").write_text("u\n")
    [found] = call("check")["steps"]["base/files"]["differences"]
    assert found == {"field": "/etc/ä", "found": "u", "wanted": "ö"}
    upload = json.dumps({"kind": "upload", "spec": {"destination": "/opt/incus-stt/up"}})
    payload = archive({"a": "a" * 5000})
    assert call("apply", "stt/upload", text=upload.encode() + b"\n" + payload) == {}
    assert (tmp_path / "opt/incus-stt/up/a").read_text() == "a" * 5000
    for step in ("base/files", "stt/upload", "stt/upload"):
        assert call("remove", step) == {}
    assert call("check")["steps"] == {} and not (tmp_path / "opt/incus-stt/up").exists()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "stdin is not a step"),
        (b"{", "stdin is not a step"),
        (b"[]", "stdin is not a step"),
        (b'{"kind": "files"}', "stdin is not a step"),
        (b"\xff\xfe", "stdin is not a step"),
        (b'{"kind": "of_tomorrow", "spec": {}}', "the kind of_tomorrow is not known. Known: cert"),
        (b'{"kind": "files", "spec": {"files": 1}}', "Files.files: expected a list"),
    ],
)
def test_what_is_not_a_step_is_told_in_a_sentence(
    archive_file: Path, tmp_path: Path, text: bytes, why: str
) -> None:
    done = _call(sys.executable, archive_file, tmp_path, "apply", "x", text=text)
    assert done.returncode == 1 and done.stdout == b""
    assert why in done.stderr.decode() and "Traceback" not in done.stderr.decode()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words", [(), ("start",), ("apply",), ("check", "x"), ("remove", "a", "b")]
)
def test_a_command_line_that_is_not_known_says_what_is(
    archive_file: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    done = _call(sys.executable, archive_file, tmp_path, *words)
    assert done.returncode == 1 and done.stdout == b""
    known = "Known: check, compile, status, update, examine [NAME…], apply|remove STEP [--stack ID]"
    assert known in done.stderr.decode()
    assert list(tmp_path.iterdir()) == []


def test_services_are_asked_on_the_way(archive_file: Path, agent: Any) -> None:
    asked = {"tags": f"{agent.systemd.url}/engine?a=b", "none": "http://127.0.0.1:1/"}
    agent.apply("stt/service", replace(agent.service("a"), reports=asked))
    done = _call(sys.executable, archive_file, agent.root, "check")
    assert json.loads(done.stdout)["answers"] == {"tags": {"model": "a"}, "none": None}
    assert json.loads(done.stdout)["steps"]["stt/service"]["differences"] == []


def test_a_check_of_a_machine_without_services_imports_little(
    archive_file: Path, agent: Any
) -> None:
    listed = agent.path("/var/lib/dpkg/status")
    (listed.parent / "updates").mkdir(parents=True)
    listed.write_text("Package: curl\nStatus: install ok installed\n")
    agent.apply("base/packages", Packages(["curl"]))
    agent.apply("base/files", Files([File("/etc/a", "a")]))
    argv = [sys.executable, "-X", "importtime", "-IS", str(archive_file), "--root", str(agent.root)]
    done = subprocess.run([*argv, "check"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0
    assert json.loads(done.stdout)["steps"].keys() == {"base/packages", "base/files"}
    names = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "agent.__main__" in names
    heavy = {
        "argparse",
        "copy",
        "inspect",
        "ipaddress",
        "signal",
        "subprocess",
        "ssl",
        "typing",
        "urllib.parse",
        "urllib.request",
        "zipfile",
        "tarfile",
        "hashlib",
        "difflib",
        "shutil",
    }
    assert names & {*heavy, "agent.kinds.service", "agent.http"} == set()


def test_stdin_that_falls_silent_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.machine.STDIN_DEADLINE", 0.2)
    read, write = os.pipe()
    kept = os.dup(0)
    os.dup2(read, 0)
    try:
        os.write(write, b"line\n")
        machine = Machine(tmp_path)
        assert machine.stdin.readline() == b"line\n"
        with pytest.raises(TimeoutError, match="nothing more arrived"):
            machine.stdin.read(1)
    finally:
        os.dup2(kept, 0)
        for descriptor in (kept, read, write):
            os.close(descriptor)
