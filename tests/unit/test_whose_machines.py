"""Operations leave alone what another stack has built: also one of the same name."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import operations.__main__ as command
from backup import save as backup_save
from doctor.gather import built
from host.client import Client
from host.objects import OWNER
from operations import state
from operations.host import OperationError, other_owner
from tests.unit.values import declared

OWN, THEIRS = "11111111-own", "22222222-theirs"
#: The commands, and what each calls once the machines are this stack's.
VERBS = {
    "status": "status.ask",
    "updates": "updates.update",
    "vram": "report",
    "flush": "flush",
    "measure": "measure",
    "ai-access-verify": "ai_access.verify",
    "hand-over": "ai_access.hand_over",
}


class Reached(Exception):  # noqa: N818  # it is no error
    """The command goes on."""


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """A checkout with the state of a stack ``cpu`` that has an id; empty: nothing is built."""
    monkeypatch.setattr(state, "ROOT", tmp_path)
    monkeypatch.delenv("PULUMI_BACKEND_URL", raising=False)
    file = tmp_path / "state" / ".pulumi" / "stacks" / "stt" / "cpu.json"
    file.parent.mkdir(parents=True)

    def build(identity: str) -> None:
        urns = "urn:pulumi:cpu::stt::command:local:Command::"
        resources = [
            {"urn": f"{urns}stack/id", "outputs": {"stdout": identity}},
            {"urn": f"{urns}ai-tools/gpu-server/instance"},
        ]
        latest = {"resources": resources if identity else None}
        file.write_text(json.dumps({"checkpoint": {"latest": latest}}))

    return build


@pytest.fixture
def owned_by(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Whose every machine is; the words of each command end where it would begin."""

    def reached(*_: Any, **__: Any) -> None:
        raise Reached

    for name in VERBS.values():
        monkeypatch.setattr(f"operations.__main__.{name}", reached)
    monkeypatch.setattr(command, "read_stack", lambda stack: declared())

    def own(owner: str) -> None:
        found = {"config": {OWNER: owner} if owner else {}}
        monkeypatch.setattr(Client, "get", lambda self, path: found)

    return own


@pytest.fixture
def of_another_checkout(checkout: Callable[[str], None], owned_by: Callable[[str], None]) -> None:
    """The machines are of another checkout's stack of the same name; this one has built its own."""
    checkout(OWN)
    owned_by(f"stt/cpu/{THEIRS}")


def run(verb: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Why a command does not begin; empty where it does."""
    monkeypatch.setattr(sys, "argv", ["operations", verb, "--stack", "cpu"])
    try:
        command.main()
    except Reached:
        return ""
    except OperationError as error:
        return str(error)
    raise AssertionError("it has done nothing")


@pytest.mark.usefixtures("of_another_checkout")
@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "hand-over"])
def test_the_machine_of_another_checkout_is_left_alone(
    verb: str, owned_by: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(verb, monkeypatch) == (
        f"gpu-server belongs to the stack cpu of the project stt with the id {THEIRS}, which "
        f"another checkout has built. This checkout's has the id {OWN}. Work there, or give this "
        "stack an environment (stt:environment) or a topology file (stt:infra) of its own."
    )
    owned_by(f"stt/gpu/{OWN}")
    assert run(verb, monkeypatch).endswith(
        "belongs to the stack gpu of the project stt, and this is about the stack cpu. Name the "
        "stack: STACK=gpu."
    )
    for own in (f"stt/cpu/{OWN}", "stt/cpu", ""):
        owned_by(own)
        assert run(verb, monkeypatch) == ""


@pytest.mark.parametrize("verb", VERBS)
def test_without_a_state_names_decide(
    verb: str,
    checkout: Callable[[str], None],
    owned_by: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checkout("")  # as after destroy
    owned_by(f"stt/cpu/{THEIRS}")
    assert run(verb, monkeypatch) == ""
    owned_by(f"other/cpu/{THEIRS}")
    assert "of the project other" in run(verb, monkeypatch)


@pytest.mark.usefixtures("of_another_checkout")
def test_up_has_seen_whose_machines_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """With ``stt:adopt`` it takes them over meanwhile."""
    assert run("hand-over", monkeypatch) == ""


@pytest.mark.usefixtures("of_another_checkout")
def test_a_backup_is_not_made_of_another_checkout_s_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backup_save, "read_stack", lambda stack: declared())
    with pytest.raises(OperationError, match=f"with the id {THEIRS}"):
        backup_save.save("cpu", "", whole=False)


def test_the_state_is_read_where_this_checkout_has_it(
    checkout: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert state.known_id("cpu") == ""  # no file
    checkout(OWN)
    assert state.known_id("cpu") == OWN
    assert built(state.saved_resources("cpu")) == {"ai-tools/gpu-server"}
    assert state.known_id("gpu") == ""
    monkeypatch.setenv("PULUMI_BACKEND_URL", "s3://somewhere")
    assert state.known_id("cpu") == ""
    monkeypatch.setenv("PULUMI_BACKEND_URL", f"file://{tmp_path}/state")
    assert state.known_id("cpu") == OWN
    (tmp_path / "state/.pulumi/stacks/stt/cpu.json").write_text('{"checkpoint"')  # just written
    assert state.known_id("cpu") == ""


def test_whose_an_object_is() -> None:
    theirs = {"config": {OWNER: f"stt/cpu/{THEIRS}"}}
    assert other_owner(theirs, "cpu", OWN) == ("stt", "cpu", THEIRS)
    assert other_owner(theirs, "cpu", "") is None
    assert other_owner(theirs, "cpu", THEIRS) is None
    assert other_owner(theirs, "gpu", THEIRS) == ("stt", "cpu", THEIRS)
    assert other_owner({}, "cpu", OWN) is None
