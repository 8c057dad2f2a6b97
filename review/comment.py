"""The comment: Markdown in which no text of a pull request is markup."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from review.changes import Change, Field, Op, Preview
from review.effects import Weight, effect, is_url

#: Characters; GitHub's limit is 65,536.
LIMIT = 64_000
#: What a script finds its comment by, to edit it in place.
MARKER = "<!-- incus-stt review: {stack} -->"
#: Characters of a value, and rows of a table, that are shown.
_VALUE, _ROWS = 160, 60
_SPARE = re.compile(r"fits, (-?\d+\.\d GiB) to spare")
_VERBS = {
    Op.CREATE: "new",
    Op.UPDATE: "changed",
    Op.REPLACE: "replaced",
    Op.DELETE: "removed",
}

#: A preview without a change.
NONE = Preview(())


@dataclass(frozen=True)
class Review:
    """What the comment tells.

    ``settings`` are the stack's settings that differ between the two commits. ``preview`` is of the
    head commit, and ``before`` of the base commit. ``deployed``: both are of the stack's state and
    host; else nothing is known of these. ``diff``: Pulumi's own. ``failed``: why the head commit
    has no preview.
    """

    stack: str
    base: str
    head: str
    engine: str
    preview: Preview
    before: Preview = NONE
    settings: Sequence[Field] = field(default_factory=tuple)
    deployed: bool = True
    diff: str = ""
    failed: str = ""


def code(text: str) -> str:
    """A text as code on one line: nothing in it is Markdown, HTML, a mention or a link."""
    short = text if len(text) <= _VALUE else f"{text[: _VALUE - 1]}…"
    return f"<code>{_inert(short)}</code>" if short else ""


def _inert(text: str) -> str:
    """Each character that means something to Markdown, HTML or a forge as its number."""
    line = re.sub(r"\s+", " ", text)
    return re.sub(r"[^A-Za-z0-9 ,–…]", lambda found: f"&#{ord(found[0])};", line)


def _plain(text: str) -> str:
    """A sentence of the program's, which may quote the pull request.

    A forge makes links of @names and #numbers outside of code, whatever stands for these letters: a
    word joiner after them keeps it from that.
    """
    return re.sub("(&#(?:35|64);)", "\\1&#8288;", _inert(text))


def comment(review: Review) -> str:
    """The whole comment, at most ``LIMIT`` characters."""
    head = [MARKER.format(stack=review.stack), f"### {code(review.stack)}: {headline(review)}", ""]
    where = "the host as it is" if review.deployed else "no host, no state"
    head.append(
        f"From {code(review.base)} to {code(review.head)}, with {where}. "
        + ("" if review.deployed else "What a secret changes is not seen this way.")
    )
    if review.failed:
        head += ["", f"<pre>{html.escape(review.failed[-4000:])}</pre>"]
        return "\n".join(head) + "\n"
    parts = [*head, *_settings(review), *_services(review), *_removed(review), *_drift(review)]
    parts += [*_card(review), *_warnings(review)]
    text = "\n".join(parts) + "\n"
    for title, body in (
        ("Each changed field", _fields(review.preview.changes)),
        ("Pulumi's own diff", review.diff),
    ):
        text += _details(title, body, LIMIT - len(text))
    return text if len(text) <= LIMIT else f"{text[: LIMIT - 20]}\n\n(cut off)\n"


def headline(review: Review) -> str:
    """The whole in one line."""
    if review.failed:
        return "the preview fails"
    weighed = [effect(change, review.engine) for change in review.preview.changes]
    if not weighed:
        return "nothing changes"
    services = {
        change.name.rpartition("/")[0]
        for change, (weight, _) in zip(review.preview.changes, weighed, strict=True)
        if weight is Weight.RESTART and change.op is not Op.DELETE and "/" in change.name
    }
    services = {name for name in services if name.count("/") == 2}
    lost = sum(weight is Weight.LOSS for weight, _ in weighed)
    machines = [each for each in review.preview.changes if each.kind == "instance"]
    replaced = [each for each in machines if each.op in (Op.REPLACE, Op.DELETE)]
    others = sum(weight is Weight.REPLACEMENT for weight, _ in weighed) - len(replaced)
    words = [f"**{_count(lost, 'volume')} deleted, with data**"] if lost else []
    words.append(f"{_count(len(services), 'service')} restart{'s' if len(services) == 1 else ''}")
    if replaced or others:
        words += [f"**{_count(len(replaced), 'machine')} replaced or deleted**"] if replaced else []
        words += [f"{_count(others, 'other object')} replaced or deleted"] if others else []
    else:
        words.append("nothing is replaced")
    if any(change.drift for change in review.preview.changes):
        drifted = sum(bool(change.drift) for change in review.preview.changes)
        words.append(f"drift in {_count(drifted, 'place')} is taken back")
    if spare := [found[1] for note in review.preview.notes if (found := _SPARE.search(note))]:
        least = min(spare, key=lambda text: float(text.split()[0]))
        words.append(f"fits on the card with {least} to spare")
    return ", ".join(words)


def _count(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    every = [f"| {' | '.join(row)} |" for row in rows]
    more = [f"\n… and {len(every) - _ROWS} more"] if len(every) > _ROWS else []
    ruler = "|" + "---|" * len(head)
    return ["", f"| {' | '.join(head)} |", ruler, *every[:_ROWS], *more] if every else []


def _settings(review: Review) -> list[str]:
    rows = [(code(each.path), code(each.old), code(each.new)) for each in review.settings]
    return _table(("setting", "before", "after"), rows)


def _services(review: Review) -> list[str]:
    """By machine and service: the heaviest effect of its changes, and what they are."""
    groups: dict[str, list[Change]] = {}
    for change in review.preview.changes:
        name = change.name.rpartition("/")[0] if change.name.count("/") == 3 else change.name
        groups.setdefault(name, []).append(change)
    rows = []
    for name, changes in groups.items():
        weighed = [effect(change, review.engine) for change in changes]
        heaviest = max(weight for weight, _ in weighed)
        words = dict.fromkeys(text for weight, text in weighed if weight is heaviest)
        moved = [
            code(each.new) for change in changes for each in change.fields if is_url(change, each)
        ]
        words |= dict.fromkeys(f"clients use {url} from then on" for url in moved)
        steps = [
            f"{_inert(change.name.rpartition('/')[2])} {_VERBS[change.op]}" for change in changes
        ]
        what = ", ".join(steps) if len(changes) > 1 or "/" in name else _VERBS[changes[0].op]
        rows.append((code(name), what, "; ".join(words)))
    return _table(("what", "change", "what it does to those who use it"), rows)


def _removed(review: Review) -> list[str]:
    found = [
        change
        for change in review.preview.changes
        if change.op is Op.DELETE and change.kind in ("instance", "volume", "network", "project")
    ]
    if not found:
        return []
    return ["", "**Removed from the host:**", ""] + [
        f"- {change.kind} {code(change.name)}" + (": stays, unmanaged" if change.kept else "")
        for change in found
    ]


def _drift(review: Review) -> list[str]:
    lines = [
        f"- {code(change.name)}: {code(line)}"
        for change in review.preview.changes
        for line in change.drift
    ]
    title = "**Changed on the host by hand; `up` takes it back:**"
    return ["", title, "", *lines[:_ROWS]] if lines else []


def _card(review: Review) -> list[str]:
    before, after = review.before.notes, review.preview.notes
    if before == after:
        return ["", *(f"- {_plain(note)}" for note in after)] if after else []
    rows = [f"- before: {_plain(note)}" for note in before if note not in after]
    return ["", *rows, *(f"- after: {_plain(note)}" for note in after)]


def _warnings(review: Review) -> list[str]:
    said = [each for each in review.preview.warnings if review.deployed or "not check" not in each]
    return ["", "**Warnings:**", "", *(f"- {_plain(each)}" for each in said)] if said else []


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
    text = html.escape(body.strip())
    room -= len(frame) + 40
    if not text or room < 200:
        return ""
    if len(text) > room:
        text = re.sub(r"&[^;]*$", "", text[:room]) + "\n… (cut off)"
    return frame.format(text)
