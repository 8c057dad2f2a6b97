"""A run that is killed before any file operation, or finds no room, is mended by the next."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from agent.actions import Run
from agent.files import File
from agent.kinds import Kind
from agent.kinds.certificates import Certificates
from agent.kinds.files import Files
from agent.kinds.model import Model
from agent.kinds.program import Program
from agent.kinds.secret_files import SecretFile, SecretFiles
from agent.kinds.upload import Upload
from tests.agent.conftest import unarmed

pytestmark = pytest.mark.sweep

STEP = "stt/step"
SECRET = "kein-wort-davon"
LIMIT = 200
#: What a run leaves that was cut off before it changed anything, or after it had done everything.
UNSEEN = (".begun.incus-stt", "paths.list.incus-stt", "salt.incus-stt")
CERTIFICATE = "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n"


@dataclass
class Change:
    """From one spec to another; ``tamper`` is a file that somebody changes between the two."""

    before: Kind | None
    after: Kind
    secret: bool = False
    payload: bytes = b""
    tamper: str = ""


def _program(agent: Any, name: str) -> Program:
    place = f"/opt/incus-stt/{name}"
    inside = agent.path(place)
    make = Run(["sh", "-c", f"mkdir -p {inside}/bin && echo {name} >{inside}/bin/tool"])
    return Program(place, name, [make], requires="bin/tool")


def _model(agent: Any, name: str) -> Model:
    place = f"/srv/models/{name}"
    fetch = Run(["sh", "-c", f"mkdir -p {agent.path(place)} && echo {name} >{agent.path(place)}/m"])
    return Model(name, place, Run(["true"]), [fetch], owner=agent.owner)


def _service(agent: Any, archive: Any) -> Change:
    return Change(
        agent.service("a", files=[File("/etc/engine/old", "old\n")]),
        agent.service("b", files=[File("/etc/engine/new", "new\n")]),
    )


def _first_service(agent: Any, archive: Any) -> Change:
    return Change(None, agent.service("b"))


def _other_unit(agent: Any, archive: Any) -> Change:
    return Change(agent.service("a"), agent.service("b", unit="other"))


def _held_service(agent: Any, archive: Any) -> Change:
    return Change(agent.service("a", socket="port"), agent.service("b", socket="port"))


def _becomes_held(agent: Any, archive: Any) -> Change:
    return Change(agent.service("a"), agent.service("b", socket="port"))


def _held_by_another(agent: Any, archive: Any) -> Change:
    return Change(
        agent.service("a", socket="port"), agent.service("b", unit="other", socket="port")
    )


def _held_elsewhere(agent: Any, archive: Any) -> Change:
    return Change(
        agent.service("a", socket="port"), agent.service("b", socket="port", host="127.0.0.2")
    )


DATABASE = "/srv/engine/data.db"


def migrate(agent: Any) -> None:
    """The programs ``a`` and ``b``: the second one changes the database, which breaks the first."""
    place = agent.path(DATABASE)
    place.parent.mkdir(parents=True)
    place.write_text("as a has it")

    def starts(text: str) -> None:
        if "MODEL=" in text:
            now = place.read_text()
            wrong = 'MODEL="a"' in text and now != "as a has it"
            with unarmed():
                place.write_text(
                    "broken" if wrong else f"as {text[text.find('MODEL=') + 7]} has it"
                )

    agent.systemd.starts = starts


def _migrating(agent: Any, archive: Any) -> Change:
    migrate(agent)
    old, new = (
        agent.service(model, data=[DATABASE, f"{DATABASE}-wal"], version=model) for model in "ab"
    )
    return Change(old, new)


def _files(agent: Any, archive: Any) -> Change:
    old = [File("/etc/one", "1\n"), File("/etc/two", "2\n")]
    return Change(Files(old), Files([File("/etc/one", "changed\n")]))


def _secrets(agent: Any, archive: Any) -> Change:
    def spec(*names: str) -> SecretFiles:
        files = [SecretFile(f"/etc/{n}", f"{SECRET}-{n}", owner=agent.owner) for n in names]
        return SecretFiles(files, STEP)

    return Change(spec("one", "two"), spec("one", "three"), secret=True)


def _programs(agent: Any, archive: Any) -> Change:
    return Change(_program(agent, "tool-1"), _program(agent, "tool-2"))


def _mended_program(agent: Any, archive: Any) -> Change:
    tool = "/opt/incus-stt/tool-1/bin/tool"
    return Change(_program(agent, "tool-1"), _program(agent, "tool-1"), tamper=tool)


def _mended_upload(agent: Any, archive: Any) -> Change:
    spec = Upload("/opt/incus-stt/up", owner=agent.owner)
    payload = archive({"a.txt": "a\n"})
    return Change(spec, spec, payload=payload, tamper=f"{spec.destination}/a.txt")


def _models(agent: Any, archive: Any) -> Change:
    return Change(_model(agent, "small"), _model(agent, "large"))


def _upload(agent: Any, archive: Any) -> Change:
    payload = archive({"a.txt": "a\n", "inner/b.txt": "b\n"})
    old, new = (Upload(f"/opt/incus-stt/{n}", owner=agent.owner) for n in ("up-1", "up-2"))
    return Change(old, new, payload=payload)


def _uploaded_file(agent: Any, archive: Any) -> Change:
    new = Upload("/opt/incus-stt/x.wav", directory=False, owner=agent.owner)
    return Change(None, new, payload=archive({"x.wav": "riff\n"}))


def _certificates(agent: Any, archive: Any) -> Change:
    first, second = CERTIFICATE.format("one"), CERTIFICATE.format("two")
    return Change(Certificates(first + second), Certificates(second))


Make = Callable[[Any, Any], Change]
CHANGES: list[Make] = [
    _service,
    _first_service,
    _held_service,
    _files,
    _secrets,
    _programs,
    _mended_program,
    _mended_upload,
    _models,
    _upload,
    _uploaded_file,
    _certificates,
]
#: These begin as ``_service`` does, and take longest.
VARIANTS: list[Make] = [_other_unit, _becomes_held, _held_by_another, _held_elsewhere, _migrating]


def _shown(agent: Any) -> dict[str, bytes]:
    """Every file but the agent's own, and seals, which hold times."""
    own = ("var/lib/incus-stt/", "run/")
    tree = agent.tree()
    return {n: t for n, t in tree.items() if not n.startswith(own) and not n.endswith(".seal")}


def _records(agent: Any) -> list[Any]:
    found = []
    for path in sorted(agent.path("/var/lib/incus-stt/steps").glob("*.json")):
        data = json.loads(path.read_text())
        found.append((data["step"], data["digest"] if not data["secret"] else "", data["spec"]))
    return found


@pytest.mark.parametrize("full", [False, True], ids=["killed", "disk-full"])
@pytest.mark.parametrize(
    "make",
    [*CHANGES, *(pytest.param(make, marks=pytest.mark.seldom) for make in VARIANTS)],
    ids=lambda make: make.__name__.strip("_"),
)
def test_at_any_moment(agent: Any, archive: Any, make: Make, full: bool) -> None:
    agent.quick = True
    change = make(agent, archive)
    more = {"secret": change.secret, "payload": change.payload}

    def act() -> None:
        agent.apply(STEP, change.after, **more)

    if change.before:
        agent.apply(STEP, change.before, **more)
    if change.tamper:
        agent.path(change.tamper).write_text("changed")
    back, before = agent.keep(), (_shown(agent), _records(agent))
    active = agent.systemd.active()
    operations = agent.count(act, full=full)
    assert operations > (3 if full else 8)
    after = (_shown(agent), _records(agent))
    assert after != before and agent.drift() == [] and agent.leftovers() == []

    reported = 0
    for number in range(1, operations + 1):
        back()
        ended = agent.cut(number, act, full=full)
        now = (_shown(agent), _records(agent))
        found = agent.drift()
        reported += bool(found)
        assert found or now in (before, after), f"{number}: nothing is said of {now}"
        assert found or all(name.endswith(UNSEEN) for name in agent.leftovers()), number
        if not change.tamper:  # a directory is made anew; a file has its old or its new content
            for name in before[0].keys() & after[0].keys():
                assert now[0].get(name) in (before[0][name], after[0][name]), (number, name)
        if full and ended == "failed" and now == before:
            assert agent.systemd.active() == active
        if change.secret:
            assert SECRET not in agent.texts(), number
        act()
        assert agent.drift() == [], number
        assert agent.leftovers() == [], number
        assert (_shown(agent), _records(agent)) == after, number
        # No room for what is not used any more: the step is done all the same.
        assert ended == "failed" or not full or (ended == "done" and now[1] == after[1])
        assert ended == "cut" or full
    assert reported >= (1 if full else 3)


@pytest.mark.parametrize("number", [8, 16, 24, 28, 32])
def test_a_process_that_exits_at_once(agent: Any, archive: Any, number: int) -> None:
    """The same as above, without anything of Python between."""
    change = _service(agent, archive)
    agent.apply(STEP, change.before)

    def act() -> None:
        agent.apply(STEP, change.after)

    assert agent.cut(number, act, process=True) == "cut"
    assert "last change: not finished -> finished" in agent.drift()
    act()
    assert agent.drift() == [] and agent.leftovers() == []
    assert 'MODEL="b"' in agent.systemd.running("engine")


@pytest.mark.parametrize(
    "make", [_service, _other_unit, _migrating, _files, _secrets, _programs, _upload]
)
def test_the_next_run_may_go_back_instead(agent: Any, archive: Any, make: Make) -> None:
    agent.quick = True
    change = make(agent, archive)
    more = {"secret": change.secret, "payload": change.payload}
    assert change.before
    agent.apply(STEP, change.before, **more)
    back, before = agent.keep(), (_shown(agent), _records(agent))
    active = agent.systemd.active()
    for number in range(2, LIMIT, 3):
        back()
        ended = agent.cut(number, lambda: agent.apply(STEP, change.after, **more))
        if make is _migrating and _records(agent) != before[1]:
            break  # it has proven itself: from then on its database is the new version's
        agent.apply(STEP, change.before, **more)
        assert agent.drift() == [] and agent.leftovers() == [], number
        assert (_shown(agent), _records(agent)) == before, number
        assert agent.systemd.active() == active == agent.systemd.enabled(), number
        if ended == "done":
            break
    assert number > 8


@pytest.mark.parametrize("make", [_service, _other_unit, _files, _secrets, _programs, _upload])
def test_the_next_run_may_take_the_step_away(agent: Any, archive: Any, make: Make) -> None:
    agent.quick = True
    change = make(agent, archive)
    more = {"secret": change.secret, "payload": change.payload}
    assert change.before
    agent.apply(STEP, change.before, **more)
    back = agent.keep()
    for number in range(1, LIMIT, 3):
        back()
        ended = agent.cut(number, lambda: agent.apply(STEP, change.after, **more))
        agent.remove(STEP)
        kept = [name for name in agent.tree() if not name.startswith("var/lib/incus-stt/salt")]
        assert set(kept) <= {"var/lib/incus-stt/steps/paths.list"}, number
        assert agent.check() == {} and agent.systemd.active() == [], number
        if ended == "done":
            break


@pytest.mark.parametrize("full", [False, True], ids=["killed", "disk-full"])
@pytest.mark.parametrize(
    "make", [_service, _files, _secrets, _programs], ids=lambda make: make.__name__.strip("_")
)
def test_a_removal_at_any_moment(agent: Any, archive: Any, make: Make, full: bool) -> None:
    agent.quick = True
    change = make(agent, archive)
    agent.apply(STEP, change.after, secret=change.secret)
    back, before = agent.keep(), _shown(agent)
    for number in range(1, LIMIT):
        back()
        ended = agent.cut(number, lambda: agent.remove(STEP), full=full)
        assert agent.drift() or _shown(agent) == before or agent.check() == {}, number
        if full:
            assert ended == "done" and _shown(agent) == {}, "a full disk is no reason to stay"
        agent.remove(STEP)
        assert _shown(agent) == {} and agent.check() == {} and agent.leftovers() == [], number
        assert agent.systemd.active() == [], number
        if ended == "done" and (not full or number > 20):
            break
