"""``python -m review STACK --base COMMIT [--head COMMIT] [--deployed|--sandbox]``.

It writes the comment on a pull request.

The head commit, and the one where it parted from the base, are previewed in directories of their
own. ``--deployed``: with the stack's state and its host, read and not changed; else with an empty
state and no host, so that nothing secret is needed. The program of each commit runs, with what that
may do; nothing else of it does. ``--sandbox``: where it can do little (``sandbox.py``).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

from yaml import YAMLError

import declaration.interrupt  # noqa: F401  # Ctrl-C ends it with a line
from declaration.connection import UNREAD
from declaration.problems import DeclarationError
from declaration.settings import Settings
from declaration.stack_file import ENCRYPTED, StackFile
from declaration.yaml_values import YamlError
from review.changes import Field, compare, read_preview
from review.comment import NONE, Review, comment
from review.sandbox import SandboxError, check_sandbox, give, wrap
from review.tree import (
    ReviewError,
    Tree,
    git,
    keep_salt,
    merge_base,
    resolve,
    same_packages,
    setting_values,
    unpack,
)
from roles.notices import notices

ROOT = Path(__file__).resolve().parent.parent


def changed_settings(before: StackFile, after: StackFile) -> list[Field]:
    """The settings that differ; of a secret only whether it is set."""
    old, new = setting_values(before), setting_values(after)
    pairs = [(key, old.get(key), new.get(key)) for key in dict.fromkeys([*old, *new])]
    return [Field(key, _shown(one), _shown(two)) for key, one, two in pairs if one != two]


def _shown(value: Any) -> str:
    if value is None:
        return "(default)"
    if value is ENCRYPTED:
        return "(secret)"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


#: What a program that is not trusted gets to see of this machine's environment.
_PASSED = re.compile(
    r"PATH|HOME|USER|TMPDIR|LANG|LC_\w+|\w+_PROXY|\w+_proxy|\w+_CERTS?_\w+|INCUS_\w+"
)
_PULUMI = ("PULUMI_SKIP_UPDATE_CHECK", "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION")


class Way(Enum):
    """How the two commits are previewed."""

    DEPLOYED = "with the stack's state and host"
    OFFLINE = "without either"
    SANDBOX = "without either, and in a sandbox"


def _own(into: Path) -> list[Path]:
    """A commit's files, its state and its home."""
    return [into, into.with_name(f"{into.name}-state"), into.with_name(f"{into.name}-home")]


def _plugins() -> Path:
    return Path(os.environ.get("PULUMI_HOME") or Path.home() / ".pulumi", "plugins")


def _environment(into: Path, way: Way) -> dict[str, str]:
    """What a commit's previews run with; without the host, nothing secret."""
    if way is Way.DEPLOYED:
        return dict(os.environ)
    _, state, home = _own(into)
    state.mkdir()
    home.mkdir()
    if _plugins().is_dir():
        (home / "plugins").symlink_to(_plugins())
    passed = {k: v for k, v in os.environ.items() if _PASSED.fullmatch(k) or k in _PULUMI}
    return {
        **passed,
        **({"HOME": str(home), "TMPDIR": "/tmp"} if way is Way.SANDBOX else {}),  # noqa: S108
        "PULUMI_BACKEND_URL": f"file://{state}",
        "PULUMI_HOME": str(home),
        "PULUMI_CONFIG_PASSPHRASE": "review",
        UNREAD: "1",
    }


def _tree(commit: str, into: Path, stack: str, way: Way) -> Tree:
    unpack(ROOT, commit, into)
    tree = Tree(into, stack, _environment(into, way))
    if way is Way.SANDBOX:
        own, path = _own(into), tree.environment["PATH"]
        give(*own)
        tree = replace(tree, wrap=partial(wrap, root=ROOT, own=own, path=path, more=[_plugins()]))
    if tree.file.exists():
        if way is Way.DEPLOYED:
            keep_salt(ROOT, tree)
        else:
            tree.initialize()
    return tree


@dataclass
class _Look:
    """A commit's preview and settings, or why there is none."""

    name: str
    file: StackFile | None = None
    document: dict[str, Any] | None = None
    tree: Tree | None = None
    same_packages: bool = True
    failed: str = ""

    @property
    def engine(self) -> str:
        """Its engine."""
        return str((self.file.values if self.file else {}).get("engine", Settings().engine))


def _look(name: str, commit: str, work: Path, stack: str, way: Way) -> _Look:
    found = _Look(name, StackFile(stack, {}))
    try:
        tree = found.tree = _tree(commit, work / name, stack, way)
        # Before its program runs: from then on its files may be anything.
        found.same_packages = same_packages(ROOT, tree)
        if tree.file.exists():
            found.file = None
            found.file = tree.stack_file()
            found.document = tree.preview()
    except (ReviewError, DeclarationError, YamlError) as error:
        found.failed = str(error)
    except (OSError, ValueError, TypeError, AttributeError, YAMLError) as error:
        found.failed = f"{type(error).__name__}: {error}"
    return found


def review(stack: str, base: str, head: str, *, way: Way, work: Path) -> Review:
    """Preview both commits.

    Raises:
        ReviewError: there is no such commit, or the head commit has no such stack.
        SandboxError: this machine cannot make a sandbox.
    """
    if way is Way.SANDBOX:
        check_sandbox()
        work.chmod(0o711)  # nobody has to get to its own directories
    deployed = way is Way.DEPLOYED
    last = resolve(ROOT, head)
    first = merge_base(ROOT, resolve(ROOT, base), last)
    with ThreadPoolExecutor(2) as pool:
        looks = [
            pool.submit(_look, name, commit, work, stack, way)
            for name, commit in (("base", first), ("head", last))
        ]
    before, after = (each.result() for each in looks)
    found = Review(
        stack,
        first[:10],
        last[:10],
        engines=tuple(dict.fromkeys((before.engine, after.engine))),
        preview=NONE,
        deployed=deployed,
        failed=after.failed,
        remarks=list(_remarks(before, after)),
        notices=notices(),
    )
    if before.file and after.file:
        found = replace(found, settings=changed_settings(before.file, after.file))
    if after.failed:
        return found
    if after.document is None or after.tree is None:
        raise ReviewError(f"the commit {head} has no stack {stack}. Name another with STACK=NAME.")
    if deployed:
        return replace(
            found,
            preview=read_preview(after.document),
            before=read_preview(before.document or {}),
            diff=_diff(after.tree),
        )
    if before.failed:
        return replace(found, failed=f"the base commit has no preview:\n{before.failed}")
    return replace(
        found,
        preview=compare(before.document or {}, after.document),
        before=compare({}, before.document or {}),
    )


def _diff(tree: Tree) -> str:
    try:
        return tree.diff()
    except ReviewError as error:
        return f"It could not be obtained: {error}"


def _remarks(before: _Look, after: _Look) -> Iterator[str]:
    if before.failed:
        yield f"The base commit has no preview: {before.failed}"
    for look in (before, after):
        if not look.same_packages:
            yield (
                f"The {look.name} commit's requirements.txt differs from that of the checkout, "
                "whose packages were used."
            )


def main() -> None:
    """Write the comment to stdout.

    Raises:
        SystemExit: it cannot be made.
    """
    parser = argparse.ArgumentParser(prog="review")
    parser.add_argument("stack")
    parser.add_argument("--base", required=True)
    parser.add_argument("--head", default="HEAD")
    parser.add_argument("--deployed", dest="way", action="store_const", const=Way.DEPLOYED)
    parser.add_argument("--sandbox", dest="way", action="store_const", const=Way.SANDBOX)
    parser.set_defaults(way=Way.OFFLINE)
    options = parser.parse_args()
    if options.head == "HEAD" and git(ROOT, "status", "--porcelain", "--untracked-files=no"):
        print("incus-stt: what is not committed is not in the review", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix="incus-stt-review-") as work:
        try:
            found = review(
                options.stack,
                options.base,
                options.head,
                way=options.way,
                work=Path(work),
            )
        except (ReviewError, SandboxError) as error:
            sys.exit(f"incus-stt: error: {error}")
    print(comment(found), end="")


if __name__ == "__main__":
    main()
