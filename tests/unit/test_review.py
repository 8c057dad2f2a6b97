"""The comment on a pull request: what previews tell, what it means, and text that is no markup."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.kinds.secret_files import SecretFiles
from declaration.stack_file import ENCRYPTED, StackFile
from declaration.step import Step
from review.__main__ import changed_settings
from review.changes import SECRET, UNKNOWN, Change, Field, Op, Preview, compare, read_preview
from review.comment import LIMIT, MARKER, Review, code, comment, headline
from review.effects import Weight, effect
from review.sandbox import SandboxError, check_sandbox, wrap
from roles import ROLES
from roles.notices import notices
from tests.unit.program import steps_of
from tests.unit.values import certificate, change_rows, declared

URN = "urn:pulumi:s::stt::stt:incus:Domain$command:local:Command::{}"


def inputs(kind: str = "service", *, triggers: Any = ("local",), **spec: Any) -> dict[str, Any]:
    return {
        "stdin": json.dumps({"kind": kind, "spec": spec}),
        "triggers": list(triggers),
        "create": "apply",
        "delete": "remove",
    }


def step(op: str, name: str, old: Any = None, new: Any = None, **more: Any) -> dict[str, Any]:
    """A step of ``pulumi preview --json``."""
    found: dict[str, Any] = {"op": op, "urn": URN.format(name)}
    for key, each in (("oldState", old), ("newState", new)):
        if each is not None:
            state = {"urn": found["urn"], "type": "command:local:Command", "inputs": each}
            found[key] = {**state, **more}
    return found


def document(*steps: dict[str, Any], **said: str) -> dict[str, Any]:
    diagnostics = [{"severity": key, "message": text} for key, text in said.items()]
    return {"steps": list(steps), "diagnostics": diagnostics}


def reviewed(*changes: Change, **more: Any) -> Review:
    found = {"stack": "s", "base": "a", "head": "b", "engines": ["faster-whisper"]}
    return Review(**{**found, "preview": Preview(changes), **more})


SERVICE = "ai-tools/gpu-server/stt_server/service"


# What a preview tells.


def test_a_change_is_told_field_by_field() -> None:
    old = inputs(variables={"STT_KEEP_ALIVE": "300", "A": "1"}, health=[{"url": "x"}])
    new = inputs(variables={"STT_KEEP_ALIVE": "3600", "B": "2"}, health=[{"url": "y"}])
    (change,) = read_preview(document(step("update", SERVICE, old, new))).changes
    assert (change.name, change.op, change.kind) == (SERVICE, Op.UPDATE, "service")
    assert {(each.path, each.old, each.new) for each in change.fields} == {
        ("variables.STT_KEEP_ALIVE", "300", "3600"),
        ("variables.A", "1", "–"),
        ("variables.B", "–", "2"),
        ("health[0].url", "x", "y"),
    }


def test_a_replacement_is_one_change_and_pulumi_s_own_resources_are_none() -> None:
    old, new = inputs("program"), inputs("program", triggers=["ssh:a@b"])
    steps = [step(op, SERVICE, old, new) for op in ("delete-replaced", "replace", "same")]
    steps.append(step("create-replacement", SERVICE, old, new))
    stack = {"op": "update", "urn": "x::stack", "newState": {"type": "pulumi:pulumi:Stack"}}
    (change,) = read_preview(document(*steps, stack)).changes
    assert change.op is Op.REPLACE
    assert change.fields == (Field("identity[0]", "local", "ssh:a@b"),)


def test_drift_is_told_without_its_time_and_only_where_it_is_new() -> None:
    told = {"environment": {"DRIFT": "port: 1, not 2\n@2026-01-01T00:00:00+00:00"}}
    drifted = step("update", SERVICE, inputs(), {**inputs(), **told})
    (change,) = read_preview(document(drifted)).changes
    assert change.drift == ("port: 1, not 2",)
    restored = step("update", SERVICE, {**inputs(), **told}, {**inputs(a=1), **told})
    assert read_preview(document(restored)).changes[0].drift == ()


def test_secrets_are_named_and_not_shown() -> None:
    old = {**inputs("secret_files"), "stdin": SECRET}
    for stdin in (UNKNOWN, "[secret] "):
        name = "ai-tools/gpu-server/stt_server/secrets"
        preview = read_preview(document(step("update", name, old, {**old, "stdin": stdin})))
        assert preview.changes[0].fields == (
            Field("secrets", "(not shown)", "(others, not shown)"),
        )


def test_an_object_that_stays_on_the_host_is_told_as_that() -> None:
    volume = {"triggers": ["local", "volume", "models"], "stdin": "{}"}
    kept = read_preview(document(step("delete", "ai-tools/volume/models", volume))).changes[0]
    assert kept.kept and effect(kept, [])[0] is Weight.IN_PLACE
    gone = step("delete", "ai-tools/volume/models", {**volume, "delete": "incus …"})
    assert effect(read_preview(document(gone)).changes[0], [])[0] is Weight.LOSS


def test_what_the_program_says_is_told_and_not_what_pulumi_says_of_its_plugins() -> None:
    said = document(
        info="auto: int8\n", warning="warning: using pulumi-resource-command from $PATH at /x\n"
    )
    assert read_preview(said) == Preview((), ("auto: int8",))


# Two commits without a host.


def test_two_previews_of_nothing_are_compared() -> None:
    machine, volume = "ai-tools/gpu-server/instance", "ai-tools/volume/models"
    name = URN.format(machine)
    base = document(
        step("create", machine, new=inputs(triggers=["local", "instance", "debian/12", UNKNOWN])),
        step("create", SERVICE, new=inputs(a=1), deletedWith=name),
        step("create", volume, new=inputs(b=UNKNOWN)),
        step("create", "ai-tools/old", new=inputs()),
    )
    head = document(
        step("create", machine, new=inputs(triggers=["local", "instance", "debian/13", "known"])),
        step("create", SERVICE, new=inputs(a=1), deletedWith=name),
        step("create", volume, new=inputs(b=2)),
        step("create", "ai-tools/new", new=inputs()),
    )
    found = {change.name: change for change in compare(base, head).changes}
    assert {name: str(change.op) for name, change in found.items()} == {
        machine: "replace",
        SERVICE: "replace",
        "ai-tools/new": "create",
        "ai-tools/old": "delete",
    }
    assert Field("identity[2]", "debian/12", "debian/13") in found[machine].fields
    assert compare(base, base).changes == ()


def test_what_depends_on_what_is_replaced_is_replaced_too() -> None:
    """Its own name for that is known only while `up` runs."""
    pool = {"triggers": ["local", "profile", "default", UNKNOWN], "stdin": "{}"}
    machine = {"triggers": ["local", "instance", "m", UNKNOWN], "stdin": "{}"}
    depends = {"triggers": [URN.format("a/profile/default")]}

    def declared(name: str) -> dict[str, Any]:
        profile = {**pool, "triggers": [*pool["triggers"], name]}
        return document(
            step("create", "a/profile/default", new=profile),
            step("create", "a/m/instance", new=machine, propertyDependencies=depends),
        )

    ops = [change.op for change in compare(declared("one"), declared("two")).changes]
    assert ops == [Op.REPLACE, Op.REPLACE]


def test_another_command_is_a_change_and_so_is_what_destroy_does() -> None:
    sent, kept = inputs(), inputs()
    del kept["delete"]
    (change,) = compare(
        document(step("create", "a/m/agent", new={**sent, "create": "x-1.pyz"})),
        document(step("create", "a/m/agent", new={**sent, "create": "x-2.pyz"})),
    ).changes
    assert change.op is Op.UPDATE
    (change,) = compare(
        document(step("create", SERVICE, new=kept)), document(step("create", SERVICE, new=sent))
    ).changes
    assert change.fields == (Field("at destroy", "kept", "deleted"),)


def test_settings_are_compared_and_their_secrets_hidden() -> None:
    secure = {"secure": "v1:abc"}
    before = StackFile("s", {"port": 8000, "apiKey": ENCRYPTED, "webui": {"signup": True}})
    after = StackFile("s", {"model": "tiny", "webui": {"signup": False, "sttKey": secure}})
    assert changed_settings(before, after) == [
        Field("stt:port", "8000", "(default)"),
        Field("stt:apiKey", "(secret)", "(default)"),
        Field("stt:webui.signup", "true", "false"),
        Field("stt:model", "(default)", "tiny"),
        Field("stt:webui.sttKey", "(default)", "(secret)"),
    ]


# Effects.

#: What docs/changes.md calls steps, and what they are here.
PLACES = {
    "stt": "gpu-server/stt_server",
    "ollama": "gpu-server/ollama_server",
    "webui": "webui/open_webui",
    "proxy": "webui/webui_proxy",
}


def _touched(name: str) -> Change:
    role, _, part = name.partition(" ")
    full = f"ai-tools/{PLACES[role]}/{part}" if role in PLACES and part else name
    return Change(full, Op.UPDATE, {"secrets": "secret_files"}.get(part, part))


#: Rows about steps: what is replaced or removed is told by other words.
STEPS = [row for row in change_rows() if not re.search("replaced|removed|deleted", row[3])]


@pytest.mark.parametrize("row", STEPS, ids=lambda row: row[0])
def test_effects_are_those_of_the_table(row: list[str]) -> None:
    """Where docs/changes.md says that a service restarts the comment does, and nowhere else."""
    _, _, cell, said = row
    touched = re.findall(r"`([^`]+)`", cell)
    weights = [effect(_touched(name), ["faster-whisper"], notices())[0] for name in touched]
    restarts = bool(touched) and re.search(r"restarts?\b", said) is not None
    assert (Weight.RESTART in weights) == restarts, (touched, said)


USERS = (Field("config.security.idmap.isolated", "–", "true"),)


@pytest.mark.parametrize(
    ("change", "weight", "words"),
    [
        (
            Change(SERVICE, Op.UPDATE, "service"),
            Weight.RESTART,
            "requests wait (0.5 s), and none is",
        ),
        (Change("a/m/open_webui/service", Op.UPDATE), Weight.RESTART, "Open WebUI restarts"),
        (Change("a/m/stt_server/model", Op.UPDATE, "model"), Weight.IN_PLACE, "beside what runs"),
        (Change("a/m/instance", Op.REPLACE, "instance"), Weight.REPLACEMENT, "its volumes stay"),
        (Change("a/m/instance", Op.DELETE, "instance"), Weight.REPLACEMENT, "is deleted"),
        (Change("a/m/instance", Op.UPDATE, "instance"), Weight.IN_PLACE, "in place"),
        (Change("a/m/instance", Op.UPDATE, "instance", USERS), Weight.RESTART, "other users on"),
        (Change("a/volume/m", Op.DELETE, "volume"), Weight.LOSS, "with all that is on it"),
        (Change("stt_server/key", Op.REPLACE), Weight.RESTART, "clients need another key"),
        (Change("stt_server/key", Op.DELETE), Weight.RESTART, "the key of stt:apiKey, or none"),
        (Change("stt_server/client/tv", Op.CREATE), Weight.IN_PLACE, "made, once"),
        (Change("stt_server/client/tv", Op.REPLACE), Weight.IN_PLACE, "tv needs another key"),
        (Change("stt_server/client/tv", Op.DELETE), Weight.IN_PLACE, "tv is refused from then on"),
        (Change(SERVICE, Op.DELETE, "service"), Weight.REPLACEMENT, "is removed"),
        (Change(SERVICE, Op.REPLACE, "service"), Weight.IN_PLACE, "with its machine"),
        (Change("a/m/stt_server/secrets", Op.DELETE), Weight.RESTART, "none is refused"),
        (Change("a/volume/m", Op.REPLACE, "volume"), Weight.LOSS, "with all that is on it"),
        (Change("a/m/stt_gateway/service", Op.UPDATE, "service"), Weight.RESTART, "most 60 s"),
        (Change("a/m/stt_gateway/watcher", Op.UPDATE, "service"), Weight.IN_PLACE, "no request"),
        (Change("a/m/stt_gateway/secrets", Op.UPDATE), Weight.IN_PLACE, "reads its keys again"),
        (Change("a/m/webui_proxy/secrets", Op.UPDATE), Weight.RESTART, "the HTTPS proxy restarts"),
        (Change("open_webui/session-key", Op.REPLACE), Weight.IN_PLACE, "everybody signs in"),
        # A role that says nothing, as one that only the head commit has.
        (Change("a/m/greeting/service", Op.UPDATE, "service"), Weight.RESTART, "may refuse or"),
        (Change("a/m/greeting/secrets", Op.UPDATE), Weight.RESTART, "may refuse or cut off"),
        (Change("a/m/greeting/second", Op.UPDATE, "service"), Weight.RESTART, "may refuse or"),
    ],
)
def test_what_a_change_does(change: Change, weight: Weight, words: str) -> None:
    found, text = effect(change, ["faster-whisper"], notices())
    assert found is weight and words in text


@pytest.fixture(scope="module")
def all_steps(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Step]:
    """The steps of every role, by ROLE/PART: with both kinds of certificates."""
    place = tmp_path_factory.mktemp("roles")
    roles = ["base_system", *(name for name in ROLES if name != "base_system")]
    lab = {"trust_level": "trusted", "machines": {"box": {"roles": roles}}}
    file = place / "infra.yml"
    file.write_text(yaml.safe_dump({"domains": {"lab": lab}}))
    found: dict[str, Step] = {}
    for tls in ({"tls": "internal"}, {**certificate(place), "names": ["stt.test"]}):
        own: dict[str, Any] = {"webui": {**tls}, "gateway": {**tls, "port": 8080}}
        declaration = declared(infra=str(file), **own).with_compute_types(["int8"])
        found |= {name.split("/", 2)[2]: step for name, step in steps_of(declaration).items()}
    return found


def test_every_service_has_words(all_steps: dict[str, Step]) -> None:
    """Those of the STT service are its engine's (engines/restart.py)."""
    services = {name for name, step in all_steps.items() if step.spec.kind == "service"}
    assert {"stt_gateway/service", "stt_gateway/watcher", "webui_proxy/service"} < services
    said = notices().steps
    assert services - {"stt_server/service"} <= said.keys() <= all_steps.keys()


def test_secrets_restart_their_service_or_the_words_say_that_they_do_not(
    all_steps: dict[str, Step],
) -> None:
    for name, step in all_steps.items():
        if isinstance(step.spec, SecretFiles):
            weight = effect(Change(f"lab/box/{name}", Op.UPDATE), ["vosk"], notices())[0]
            assert (weight is Weight.RESTART) == bool(step.spec.service), name


def test_every_secret_that_is_made_once_has_words() -> None:
    """A client's own name is in the words for its key."""
    secrets = [role.secrets(declared(clients=["tv"]).settings) for role in ROLES.values()]
    made = {name for each in secrets for name, value in each.items() if not value}
    assert made - {"stt_server/client/tv"} == notices().kept.keys()


def test_a_restart_of_the_gateway_is_counted() -> None:
    nginx = Change("ai-tools/front/stt_gateway/service", Op.UPDATE, "service")
    watcher = Change("ai-tools/front/stt_gateway/watcher", Op.UPDATE, "service")
    own = Change("ai-tools/front/greeting/service", Op.UPDATE, "service")
    for changes, count in (
        ((nginx, watcher), "1 service restarts"),
        ((watcher,), "no services restart"),
        ((nginx, own), "2 services restart"),
    ):
        found = headline(reviewed(*changes, notices=notices()))
        assert found == f"{count}, nothing is replaced"


def test_an_engine_of_the_operator_s_own_refuses_while_it_restarts() -> None:
    change = Change(SERVICE, Op.UPDATE, "service")
    for engines in (["custom"], ["speaches", "custom"]):
        assert "refused meanwhile (how long is not known)" in effect(change, engines)[1]
    assert "refused meanwhile (2.5 to 3.0 s" in effect(change, ["custom", "speaches"])[1]
    assert "2.5 to 3.0 s" in effect(change, ["vosk", "speaches"])[1]


def started(unit: str, language: str, seconds: float | None) -> dict[str, Any]:
    """A service in a state: what it is, and what its last start took."""
    said = json.dumps({"took": {} if seconds is None else {"restart": seconds}})
    return {"inputs": inputs(unit=unit, language=language), "outputs": {"stdout": f"at\n{said}"}}


@pytest.mark.parametrize(
    ("engines", "seconds", "words"),
    [
        (["custom"], 2.34, "requests are refused meanwhile (2.3 s the last time)"),
        (["custom"], None, "requests are refused meanwhile (how long is not known)"),
        (["owhisper"], 3.0, "requests wait (3.0 s the last time), and none is refused"),
        (["owhisper"], None, "requests wait (how long is not known), and none is refused"),
        (["vosk"], 1.0, "requests wait (1.0 s the last time), and none is refused"),
        # The last time was another engine's.
        (["vosk", "owhisper"], 1.0, "requests wait (how long is not known), and none is refused"),
        (["owhisper", "custom"], 1.0, "requests are refused meanwhile (how long is not known)"),
    ],
)
def test_a_restart_is_as_long_as_the_last_one_of_this_service(
    engines: list[str], seconds: float | None, words: str
) -> None:
    old, new = (started(unit, unit, seconds) for unit in (engines[0], engines[-1]))
    service: dict[str, Any] = {"op": "update", "urn": URN.format(SERVICE)}
    states = {"type": "command:local:Command"}
    changed = {**service, "oldState": {**old, **states}, "newState": {**new, **states}}
    changed["newState"]["inputs"] = inputs(unit=engines[-1], language="another")
    (change,) = read_preview(document(changed)).changes
    assert effect(change, engines)[1] == f"the STT service restarts: {words}"
    if engines[0] == engines[-1]:  # another key restarts the service, whose own step is the same
        same = {**service, "op": "same", "oldState": {**old, **states}, "newState": {**old}}
        secrets = step("update", SERVICE.replace("/service", "/secrets"), inputs(), inputs(a=1))
        (change,) = read_preview(document(same, secrets)).changes
        assert effect(change, engines)[1] == f"the STT service restarts: {words}"


# The comment.


def test_headlines() -> None:
    service = Change(SERVICE, Op.UPDATE, "service")
    webui = Change("ai-tools/webui/open_webui/service", Op.UPDATE, "service")
    machine = Change("ai-tools/webui/instance", Op.REPLACE, "instance")
    volume = Change("ai-tools/volume/webui", Op.DELETE, "volume")
    note = "gpu-server: card: small takes about 2 GiB: fits, 1.9 GiB to spare"
    fits = Preview((service, webui), (note,))
    assert headline(reviewed()) == "nothing changes"
    assert headline(reviewed(preview=fits)) == (
        "2 services restart, nothing is replaced, fits on the card with 1.9 GiB to spare"
    )
    assert headline(reviewed(service)) == "1 service restarts, nothing is replaced"
    assert headline(reviewed(machine, volume)) == (
        "**1 volume deleted, with data**, no services restart, **1 machine replaced or deleted**"
    )
    drifted = Change(SERVICE, Op.UPDATE, "service", drift=("port: 1, not 2",))
    assert "drift in 1 place is reverted" in headline(reviewed(drifted))
    assert headline(reviewed(failed="no")) == "the preview fails"
    removed = Change(SERVICE, Op.DELETE, "service")
    assert headline(reviewed(removed, webui)) == (
        "**1 service removed**, 1 service restarts, nothing is replaced"
    )
    assert "**clients need another key**" in headline(
        reviewed(Change("stt_server/key", Op.REPLACE))
    )
    new = Change(SERVICE, Op.CREATE, "service")
    assert headline(reviewed(new)) == "nothing is replaced, 1 service new"


def test_the_comment_tells_settings_services_drift_and_removals() -> None:
    moved = Change(
        SERVICE.replace("/service", "/verify"),
        Op.UPDATE,
        "transcription",
        (Field("url", "http://10.0.0.1:8000/v1", "http://10.0.0.1:8100/v1"),),
        ("port: 1, not 2",),
    )
    gone = Change("ai-tools/webui/instance", Op.DELETE, "instance")
    text = html.unescape(
        comment(
            reviewed(
                Change(SERVICE, Op.UPDATE, "service"),
                moved,
                gone,
                settings=[Field("stt:port", "(default)", "8100")],
                before=Preview((), ("gpu-server: fits, 3.0 GiB to spare",)),
                diff="~ stdin: a => b",
            )
        )
    )
    assert text.startswith(MARKER.format(stack="s"))
    assert "| <code>stt:port</code> | <code>(default)</code> | <code>8100</code> |" in text
    assert "<code>service</code> changed, <code>verify</code> changed | refused at the old" in text
    assert "from then on; clients use <code>http://10.0.0.1:8100/v1</code> |" in text
    assert "- instance <code>ai-tools/webui/instance</code>\n" in text
    assert "<code>port: 1, not 2</code>" in text
    assert "- before: <code>gpu-server: fits, 3.0 GiB to spare</code>" in text
    assert "~ stdin: a => b" in text


def test_a_failure_is_told_with_its_words() -> None:
    text = comment(reviewed(failed="stt:model is 'x' </pre><script>"))
    assert "the preview fails" in text and "&lt;script&gt;" in text and "<script" not in text


ATTACKS = st.one_of(
    st.text(max_size=300),
    st.sampled_from(
        [
            "</code><img src=x onerror=alert(1)>",
            "`x` | **b** | [a](http://x) ![i](http://x)",
            "@everyone #1 <!-- incus-stt review: other -->",
            "a\n\n# heading\n\n| x |\n",
            "</pre></details><script>",
            "[[http://evil.example/x.png]] GH-1 0123456789abcdef @octocat\u202e\x1b",
            "x&#60;script&#62; \\| ~~a~~ https://x.example www.x.example",
        ]
    ),
)


@given(ATTACKS)
@settings(deadline=None)
def test_no_text_is_markup(text: str) -> None:
    """Between the tags there are only letters, digits and numbers of characters."""
    shown = code(text)
    inner = shown.removeprefix("<code>").removesuffix("</code>")
    assert re.fullmatch(r"(?:[A-Za-z0-9 ,–…]|&#\d+;)*", inner)
    whole = comment(
        reviewed(
            Change(
                f"a/{text}/stt_server/service", Op.UPDATE, "service", (Field(text, text, text),)
            ),
            settings=[Field(text, text, text)],
            preview=Preview((Change(text, Op.DELETE, drift=(text,)),), (text,), (text,)),
            before=Preview((), ("x", text)),
            diff=text,
            failed="",
        )
    )
    tags = set(re.findall(r"<[^>]*>", whole))
    ours = {"code", "pre", "details", "summary"}
    allowed = {f"<{end}{tag}>" for tag in ours for end in ("", "/")}
    assert tags <= allowed | {MARKER.format(stack="s")}
    # All of it is within code or pre, where no forge makes links.
    outside = re.sub(r"<(code|pre)>.*?</\1>", "", whole, flags=re.DOTALL)
    assert "&#" not in outside and not re.search(r"[@\[\]]", outside), outside


def test_it_is_never_too_long() -> None:
    fields = tuple(Field(f"f{number}", "<" * 90, "x" * 90) for number in range(20))
    changes = [Change(f"a/m{n}/r/service", Op.UPDATE, "service", fields) for n in range(100)]
    text = comment(reviewed(*changes, diff="y&" * 50_000))
    assert len(text) <= LIMIT and "… and 40 more" in text and "(cut off)" in text
    gone = Change("a/m/instance", Op.DELETE, "instance")
    long = [Field("<" * 160, "<" * 160, "<" * 160)] * 60
    text = comment(reviewed(gone, settings=long, preview=Preview((gone,), (), ("careful",))))
    assert len(text) <= LIMIT and "Removed from the host" in text and "careful" in text
    assert "There is more, which does not fit here" in text
    assert text.count("<details>") == text.count("</details>")


def test_a_sandbox_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(SandboxError, match="needs root"):
        check_sandbox()
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("shutil.which", lambda name: None if name == "bwrap" else name)
    with pytest.raises(SandboxError, match="apt-get install bubblewrap"):
        check_sandbox()


def test_what_goes_with_a_machine_is_said_once() -> None:
    """Its services do not restart: they are made again. Its agent, and values, are no losses."""
    changes = (
        Change("a/gpu-server/instance", Op.REPLACE, "instance"),
        Change("a/gpu-server/agent", Op.REPLACE),
        Change("a/gpu-server/stt_server/service", Op.REPLACE, "service"),
        Change("a/gpu-server/stt_server/secrets", Op.DELETE, "secret_files", kept=True),
        Change("open_webui/admin-password", Op.DELETE, kept=True),
        Change("a/volume/webui", Op.DELETE, "volume", kept=True),
    )
    text = html.unescape(comment(Review("gpu", "1", "2", ("speaches",), Preview(changes))))
    assert ": no services restart, **1 machine replaced or deleted**\n" in text
    rows = [line for line in text.splitlines() if line.startswith("| <code>")]
    assert [row.split("</code>")[0].removeprefix("| <code>") for row in rows] == [
        *("a/gpu-server/instance", "open_webui/admin-password", "a/volume/webui"),
    ]
    removed = text.partition("**Removed from the host:**")[2].partition("| what")[0]
    assert removed.strip() == "- volume <code>a/volume/webui</code>: stays, unmanaged"


def test_a_new_machine_s_service_is_new_and_does_not_restart() -> None:
    changes = (
        Change("a/more/instance", Op.CREATE, "instance"),
        Change("a/more/stt_server/secrets", Op.CREATE, "secret_files"),
        Change("a/more/stt_server/service", Op.CREATE, "service"),
    )
    text = html.unescape(comment(Review("gpu", "1", "2", ("speaches",), Preview(changes))))
    assert ": nothing is replaced, 1 service new\n" in text
    row = next(line for line in text.splitlines() if "a/more/stt_server" in line)
    assert row.endswith("| the service is new |")


def test_a_program_s_versions_are_told() -> None:
    new = Field("description", "Open WebUI 0.11.4", "Open WebUI 0.12.4")
    changes = (
        Change("a/webui/open_webui/program", Op.UPDATE, "program", (new,)),
        Change("a/webui/open_webui/service", Op.UPDATE, "service"),
    )
    text = html.unescape(comment(Review("gpu", "1", "2", ("speaches",), Preview(changes))))
    versions = "<code>Open WebUI 0.11.4</code> → <code>Open WebUI 0.12.4</code>"
    assert f"| <code>program</code> changed: {versions}, <code>service</code> changed |" in text


def test_what_a_sandbox_shows_of_the_machine_is_programs(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    for name in ("pulumi", "secrets"):
        (tmp_path / "bin" / name).touch()
    own = [tmp_path / "tree", tmp_path / "state"]
    words = wrap(["pulumi", "preview"], tmp_path, own, f"{tmp_path / 'bin'}:/usr/bin")
    bound = [words[i + 1] for i, word in enumerate(words) if word in ("--bind", "--ro-bind")]
    assert {"/usr", "/etc", str(tmp_path / "bin" / "pulumi")} <= set(bound)
    assert str(tmp_path / "bin" / "secrets") not in bound and str(tmp_path) not in bound
    writable = [words[i + 1] for i, word in enumerate(words) if word == "--bind"]
    assert writable == [str(each) for each in own]
    assert {"--unshare-net", "--unshare-pid", "--no-new-privs"} <= set(words)
    assert words[-2:] == ["pulumi", "preview"]
