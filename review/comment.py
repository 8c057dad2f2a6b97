"""The comment: Markdown in which no text of a pull request is markup."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from declaration.notice import Notices
from review.changes import Change, Field, Op, Preview
from review.effects import (
    KEY,
    NO_NOTICES,
    OBJECTS,
    Weight,
    effect,
    is_service,
    is_url,
    new_address,
    role_of,
)

#: Characters; GitHub's limit is 65,536.
LIMIT = 64_000
#: What a script finds its comment by, to edit it in place.
MARKER = "<!-- incus-stt review: {stack} -->"
#: Characters of a value, and rows of a table, that are shown; characters kept for folded parts.
_VALUE, _ROWS, _FOLDED = 160, 60, 8_000
_SPARE = re.compile(r"fits, (-?\d+\.\d GiB) to spare")
_VERBS = {
    Op.CREATE: "new",
    Op.UPDATE: "changed",
    Op.REPLACE: "replaced",
    Op.DELETE: "removed",
}
#: What is said if nobody looked at the host.
_UNREAD = ("Drift was not checked.", "What fits on the card was not checked")
#: A preview without a change.
NONE = Preview(())


@dataclass(frozen=True)
class Review:
    """What the comment tells.

    ``settings`` are the stack's settings that differ between the two commits. ``preview`` is of the
    head commit, and ``before`` of the base commit. ``engines`` are those of both; ``notices`` are
    what the roles of this checkout say. ``deployed``: the previews are of the stack's state and
    host; else nothing is known of these. ``diff``: Pulumi's own. ``failed``: why the head commit
    has no preview. ``remarks``: what else to know.
    """

    stack: str
    base: str
    head: str
    engines: Sequence[str]
    preview: Preview
    before: Preview = NONE
    settings: Sequence[Field] = field(default_factory=tuple)
    deployed: bool = True
    diff: str = ""
    failed: str = ""
    remarks: Sequence[str] = ()
    notices: Notices = NO_NOTICES

    def effect(self, change: Change) -> tuple[Weight, str]:
        """How much a change asks of users, and what, in words."""
        return effect(change, self.engines, self.notices)


def code(text: str, limit: int = _VALUE) -> str:
    """A text as code on one line: nothing in it is Markdown, HTML, a mention or a link.

    Forges make links of names, numbers and addresses in all text that is not code, whatever stands
    for its letters; so every text of a pull request goes through here.
    """
    line = re.sub(r"\s+", " ", _visible(text))
    short = line if len(line) <= limit else f"{line[: limit - 1]}…"
    inert = re.sub(r"[^A-Za-z0-9 ,–…]", lambda found: f"&#{ord(found[0])};", short)
    return f"<code>{inert}</code>" if inert.strip() else ""


def _visible(text: str) -> str:
    """Without characters that nobody sees, and those that turn the direction of what follows."""
    return "".join(
        each for each in text if each in "\n\t" or unicodedata.category(each) not in ("Cc", "Cf")
    )


def comment(review: Review) -> str:
    """The whole comment, at most ``LIMIT`` characters."""
    lines = [MARKER.format(stack=review.stack), f"### {code(review.stack)}: {headline(review)}", ""]
    base, head = code(review.base), code(review.head)
    lines.append(
        f"What `up` of {head} would do on the host as it is now; the settings are compared with "
        f"those of {base}."
        if review.deployed
        else f"From {base} to {head}, without the host. What a secret's value changes is not seen."
    )
    lines += ["", *(f"- {code(each, 600)}" for each in review.remarks)]
    if review.failed:
        lines += ["", f"<pre>{html.escape(_visible(review.failed)[-4000:])}</pre>"]
        return "\n".join(lines) + "\n"
    parts = (_removed, _warnings, _services, _drift, _settings, _card)
    text = _fitting([*lines, *(line for part in parts for line in part(review))])
    for title, body in (
        ("Each changed field", _fields(review.preview.changes)),
        ("Pulumi's own diff", review.diff),
    ):
        text += _details(title, body, LIMIT - len(text))
    return text


def _fitting(lines: Iterable[str]) -> str:
    """Whole lines, as many as there is room for."""
    text = ""
    for line in lines:
        if len(text) + len(line) > LIMIT - _FOLDED:
            return f"{text}\n\n**There is more, which does not fit here.**\n"
        text += f"{line}\n"
    return text


def headline(review: Review) -> str:
    """The whole in one line."""
    if review.failed:
        return "the preview fails"
    changes = review.preview.changes
    if not changes:
        return "nothing changes"
    words = [*_losses(review), *_restarts(review), *_replacements(changes)]
    new = [each for each in changes if each.op is Op.CREATE and is_service(each)]
    words += [f"{_count(len(new), 'service')} new"] if new else []
    if drifted := sum(bool(change.drift) for change in changes):
        words.append(f"drift in {_count(drifted, 'place')} is reverted")
    if spare := [found[1] for note in review.preview.notes if (found := _SPARE.search(note))]:
        least = min(spare, key=lambda text: float(text.split()[0]))
        words.append(f"fits on the card with {least} to spare")
    return ", ".join(words)


def _losses(review: Review) -> Iterator[str]:
    changes = review.preview.changes
    lost = sum(review.effect(change)[0] is Weight.LOSS for change in changes)
    removed = [each for each in changes if each.op is Op.DELETE and is_service(each)]
    if lost:
        yield f"**{_count(lost, 'volume')} deleted, with data**"
    if removed:
        yield f"**{_count(len(removed), 'service')} removed**"
    if any(each.name == KEY and each.op is not Op.CREATE for each in changes):
        yield "**clients need another key**"


def _restarts(review: Review) -> Iterator[str]:
    new_or_gone = {
        each.name.rpartition("/")[0]
        for each in review.preview.changes
        if each.op in (Op.CREATE, Op.DELETE) and is_service(each)
    }
    made_again = _machines(review.preview.changes, Op.REPLACE)
    services = {
        change.name.rpartition("/")[0]
        for change in review.preview.changes
        if change.name.count("/") == 3
        and review.effect(change)[0] is Weight.RESTART
        and _machine(change.name) not in made_again
    } - new_or_gone
    if services or not any(each.op is Op.CREATE for each in review.preview.changes):
        yield f"{_count(len(services), 'service')} restart{'s' if len(services) == 1 else ''}"


def _machine(name: str) -> str:
    """The machine that a resource is of or in: ``DOMAIN/MACHINE``."""
    return "/".join(name.split("/")[:2])


def _machines(changes: Iterable[Change], *ops: Op) -> set[str]:
    """The machines to which one of these happens."""
    return {_machine(each.name) for each in changes if each.kind == "instance" and each.op in ops}


def _replacements(changes: Iterable[Change]) -> Iterator[str]:
    objects = [
        each
        for each in changes
        if each.op in (Op.REPLACE, Op.DELETE) and each.name.count("/") < 3 and each.kind
    ]
    machines = [each for each in objects if each.kind == "instance"]
    others = [each for each in objects if each.kind not in ("instance", "volume")]
    if machines:
        yield f"**{_count(len(machines), 'machine')} replaced or deleted**"
    if others:
        yield f"{_count(len(others), 'other object')} replaced or deleted"
    if not objects:
        yield "nothing is replaced"


def _count(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    every = [f"| {' | '.join(row)} |" for row in rows]
    more = ["", f"… and {len(every) - _ROWS} more"] if len(every) > _ROWS else []
    ruler = "|" + "---|" * len(head)
    return ["", f"| {' | '.join(head)} |", ruler, *every[:_ROWS], *more] if every else []


def _list(title: str, items: Sequence[str]) -> list[str]:
    more = [f"- … and {len(items) - _ROWS} more"] if len(items) > _ROWS else []
    return ["", title, "", *(f"- {item}" for item in items[:_ROWS]), *more] if items else []


def _settings(review: Review) -> list[str]:
    rows = [(code(each.path), code(each.old), code(each.new)) for each in review.settings]
    return _table(("setting", "before", "after"), rows)


def _services(review: Review) -> list[str]:
    """By machine and service: the heaviest effect of its changes, and what they are."""
    groups: dict[str, list[Change]] = {}
    for change in review.preview.changes:
        name = change.name.rpartition("/")[0] if change.name.count("/") == 3 else change.name
        groups.setdefault(name, []).append(change)
    rows, lost = [], _machines(review.preview.changes, Op.REPLACE, Op.DELETE)
    for name, changes in groups.items():
        service = [each for each in changes if is_service(each) and each.op is not Op.UPDATE]
        gone = [each for each in service if each.op is Op.DELETE]
        if _machine(name) in lost and changes[0].kind != "instance" and not gone:
            continue  # the machine's own row says it
        weighed = [review.effect(change) for change in service or changes]
        heaviest = max(weight for weight, _ in weighed)
        words = dict.fromkeys(text for weight, text in weighed if weight is heaviest)
        moved = [each.new for change in changes for each in change.fields if is_url(change, each)]
        if moved:  # nobody waits at an address that is given up
            words = dict.fromkeys(new_address(code(url)) for url in moved)
        verbs = dict.fromkeys(_VERBS[change.op] for change in changes)
        if name.count("/") == 2:
            what = ", ".join(map(_step, changes)) if role_of(changes[0]) else ", ".join(verbs)
        else:
            what = ", ".join(verbs)
        rows.append((code(name), what, "; ".join(words)))
    return _table(("what", "change", "what it does to those who use it"), rows)


def _step(change: Change) -> str:
    """A step and what happens to it; of a program that changes, both versions."""
    said = f"{code(change.name.rpartition('/')[2])} {_VERBS[change.op]}"
    versions = [each for each in change.fields if each.path == "description"]
    if change.kind != "program" or not versions:
        return said
    return f"{said}: {code(versions[0].old)} → {code(versions[0].new)}"


def _removed(review: Review) -> list[str]:
    gone = [each for each in review.preview.changes if each.op is Op.DELETE]
    kept_in = {each.name.split("/")[0] for each in gone if each.kept and each.kind == "volume"}
    found = []
    for change in gone:
        project = change.kind == "project" and change.name.split("/")[0] in kept_in
        if change.kind not in OBJECTS:  # it goes with its machine, or is a value of the state
            continue
        if change.kept or project:
            found.append(f"{change.kind} {code(change.name)}: stays, unmanaged")
        elif change.kind in ("instance", "volume", "network", "project"):
            found.append(f"{change.kind} {code(change.name)}")
    return _list("**Removed from the host:**", found)


def _drift(review: Review) -> list[str]:
    lines = [
        f"{code(change.name)}: {code(line)}"
        for change in review.preview.changes
        for line in change.drift
    ]
    return _list("**Changed on the host by hand; `up` reverts it:**", lines)


def _card(review: Review) -> list[str]:
    """What the planner says; for the base commit too where it says something else."""
    before, after = review.before.notes, review.preview.notes
    gone = [f"before: {code(note, 600)}" for note in before if note not in after]
    new = [f"{'after: ' if note not in before else ''}{code(note, 600)}" for note in after]
    return _list("**The plan:**", [*gone, *new])


def _warnings(review: Review) -> list[str]:
    said = [
        code(each, 600)
        for each in review.preview.warnings
        if review.deployed or not each.startswith(_UNREAD)
    ]
    return _list("**Warnings:**", said)


def _fields(changes: Iterable[Change]) -> str:
    lines = []
    for change in changes:
        if change.fields:
            lines.append(change.name)
            lines += [f"  {each.path}: {each.old} => {each.new}" for each in change.fields]
    return "\n".join(lines)


def _details(title: str, body: str, room: int) -> str:
    """A folded part; what does not fit is left out, and that is said."""
    frame = f"\n<details><summary>{title}</summary>\n\n<pre>{{}}</pre>\n</details>\n"
    text = html.escape(_visible(body.strip()[:LIMIT]))
    room -= len(frame) + 40
    if not text or room < 200:
        return ""
    if len(text) > room or len(body.strip()) > LIMIT:
        text = re.sub(r"&[^;]*$", "", text[:room]) + "\n… (cut off)"
    return frame.replace("{}", text)
