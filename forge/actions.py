"""What the workflows do on a forge."""

from __future__ import annotations

import re

from forge.api import Forge, ForgeError

_MARKER = re.compile(r"<!-- incus-stt review: [\w.-]+ -->")
#: GitHub's limit is 65,536 characters; Forgejo's and Gitea's are larger.
_MOST = 65_000


def write_comment(forge: Forge, number: int, text: str) -> str:
    """Write a comment on a pull request, or rewrite the one that is there.

    The first line is a hidden marker: one comment for each stack.

    Raises:
        ForgeError: the text has no marker, or the forge refuses.
    """
    marker = text.partition("\n")[0].strip()
    if not _MARKER.fullmatch(marker) or len(text) > _MOST:
        raise ForgeError("the text is not a comment of `make review`. Give its output on stdin.")
    for entry in forge.every(f"issues/{number}/comments"):
        if forge.is_own(entry) and str(entry.get("body", "")).startswith(marker):
            forge.call("PATCH", f"issues/comments/{entry['id']}", {"body": text})
            return f"comment {entry['id']} is rewritten"
    made = forge.call("POST", f"issues/{number}/comments", {"body": text})
    return f"comment {made['id']} was created"


def _context(stack: str) -> str:
    return f"incus-stt: {stack}"


def set_status(forge: Forge, commit: str, stack: str, state: str) -> str:
    """Note on a commit whether a stack runs it: ``pending``, ``success`` or ``failure``.

    Raises:
        ForgeError: the forge refuses.
    """
    words = {"pending": "make up", "success": "up and verified", "failure": "failed"}
    body = {"state": state, "context": _context(stack), "description": words[state]}
    forge.call("POST", f"statuses/{commit}", body)
    return f"commit {commit[:10]} is noted as {state} on {stack}"


def require_status(forge: Forge, commit: str, stack: str) -> str:
    """See that a stack has run a commit, and nothing failed since.

    Raises:
        ForgeError: it has not.
    """
    found = [
        entry
        for entry in forge.every(f"commits/{commit}/statuses")
        if entry.get("context") == _context(stack)
    ]
    newest = max(found, key=lambda entry: int(entry["id"]), default={})
    # GitHub calls it state, Forgejo and Gitea status.
    state = newest.get("state") or newest.get("status") or "nothing"
    if state != "success":
        raise ForgeError(
            f"commit {commit[:10]} is not verified on {stack}: it says {state}. Let the workflow "
            f"staging end for this commit first."
        )
    return f"commit {commit[:10]} is verified on {stack}"


def _code(text: str) -> str:
    """Text as code that no forge renders or resolves."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text.rstrip()}\n{fence}\n"


def report_drift(forge: Forge, stack: str, report: str) -> str:
    """Keep one issue open as long as a stack's host differs from it.

    Raises:
        ForgeError: the forge refuses.
    """
    marker = f"<!-- incus-stt drift: {stack} -->"
    number = next(
        (
            int(entry["number"])
            # Not by `type`: GitHub means something else by that than Forgejo and Gitea.
            for entry in forge.every("issues", state="open")
            if not entry.get("pull_request")
            and forge.is_own(entry)
            and str(entry.get("body", "")).startswith(marker)
        ),
        None,
    )
    if not report.strip():
        if number is None:
            return "no drift"
        said = {"body": "The host is as the stack says again."}
        forge.call("POST", f"issues/{number}/comments", said)
        forge.call("PATCH", f"issues/{number}", {"state": "closed"})
        return f"no drift; issue {number} is closed"
    lines = report.strip().splitlines()
    shown = "\n".join(lines)[: _MOST - 2000]
    body = (
        f"{marker}\nSomebody changed by hand what the stack `{stack}` manages. `make up` "
        f"reverts it; what you want to keep belongs in the stack or the topology.\n\n{_code(shown)}"
    )
    count = f"{len(lines)} difference{'s' if len(lines) > 1 else ''}"
    content = {"title": f"Drift on {stack}: {count}", "body": body}
    if number is None:
        made = forge.call("POST", "issues", content)
        return f"issue {made['number']} was created"
    forge.call("PATCH", f"issues/{number}", content)
    return f"issue {number} is rewritten"
