"""``python -m review STACK --base COMMIT [--head COMMIT] [--deployed]``: write the comment.

Both commits are previewed in directories of their own. ``--deployed``: with the stack's state and
its host, read and not changed; else with an empty state and no host, so that nothing secret is
needed. The program of each commit runs, with what that may do; nothing else of it does.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from declaration.problems import DeclarationError
from declaration.settings import Settings
from declaration.stack_file import ENCRYPTED, StackFile
from review.changes import Field, compare, read_preview
from review.comment import NONE, Review, comment
from review.tree import (
    UNREAD,
    ReviewError,
    Tree,
    git,
    keep_salt,
    resolve,
    setting_values,
    unpack,
)

ROOT = Path(__file__).resolve().parent.parent


def changed_settings(before: StackFile, after: StackFile) -> list[Field]:
    """The settings that differ; of a secret only that it is another one, where that is known."""
    old, new = setting_values(before), setting_values(after)
    pairs = [(key, old.get(key), new.get(key)) for key in dict.fromkeys([*old, *new])]
    return [Field(key, _shown(one), _shown(two)) for key, one, two in pairs if one != two]


def _shown(value: Any) -> str:
    if value is None:
        return "(default)"
    if value is ENCRYPTED:
        return "(secret)"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _tree(commit: str, into: Path, stack: str, deployed: bool) -> Tree:
    unpack(ROOT, commit, into)
    environment = {}
    if not deployed:
        state, home = into.with_name(f"{into.name}-state"), into.with_name(f"{into.name}-home")
        state.mkdir()
        environment = {
            "PULUMI_BACKEND_URL": f"file://{state}",
            "PULUMI_HOME": str(home),
            "PULUMI_CONFIG_PASSPHRASE": "review",
            "PULUMI_CONFIG_PASSPHRASE_FILE": "",
            UNREAD: "1",
        }
    tree = Tree(into, stack, environment)
    if tree.file.exists():
        if deployed:
            keep_salt(ROOT, tree)
        else:
            tree.initialize()
    return tree


def _stack_file(tree: Tree) -> StackFile:
    return tree.stack_file() if tree.file.exists() else StackFile(tree.file.name, {})


def review(stack: str, base: str, head: str, *, deployed: bool, work: Path) -> Review:
    """Preview both commits.

    Raises:
        ReviewError: there is no such commit, or the head commit has no such stack.
    """
    commits = {"base": resolve(ROOT, base), "head": resolve(ROOT, head)}
    trees: dict[str, Tree] = {}
    documents: dict[str, dict[str, Any]] = {}
    failed: dict[str, str] = {}
    settings: dict[str, StackFile] = {}

    def look(name: str) -> None:
        try:
            tree = trees[name] = _tree(commits[name], work / name, stack, deployed)
            settings[name] = _stack_file(tree)
            documents[name] = tree.preview() if tree.file.exists() else {}
        except (ReviewError, DeclarationError) as error:
            failed[name] = str(error)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(look, commits))
    found = Review(
        stack,
        commits["base"][:10],
        commits["head"][:10],
        engine=Settings().engine,
        preview=NONE,
        deployed=deployed,
    )
    if "head" in settings and "base" in settings:
        changed = changed_settings(settings["base"], settings["head"])
        engine = str(settings["head"].values.get("engine", found.engine))
        found = replace(found, settings=changed, engine=engine)
    if "head" in failed:
        return replace(found, failed=failed["head"])
    if not trees["head"].file.exists():
        raise ReviewError(f"the commit {head} has no stack {stack}: {trees['head'].file.name}")
    if deployed:
        preview = read_preview(documents["head"])
        before = read_preview(documents.get("base", {}))
        found = replace(found, preview=preview, before=before, diff=trees["head"].diff())
    elif "base" in failed:
        return replace(found, failed=f"the base commit has no preview:\n{failed['base']}")
    else:
        preview = compare(documents["base"], documents["head"])
        before = compare({}, documents["base"])
        found = replace(found, preview=preview, before=before)
    return found


def main() -> None:
    """Write the comment to stdout.

    Raises:
        SystemExit: it cannot be made.
    """
    parser = argparse.ArgumentParser(prog="review")
    parser.add_argument("stack")
    parser.add_argument("--base", required=True)
    parser.add_argument("--head", default="HEAD")
    parser.add_argument("--deployed", action="store_true")
    options = parser.parse_args()
    if options.head == "HEAD" and git(ROOT, "status", "--porcelain", "--untracked-files=no"):
        print("incus-stt: what is not committed is not in the review", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix="incus-stt-review-") as work:
        try:
            found = review(
                options.stack,
                options.base,
                options.head,
                deployed=options.deployed,
                work=Path(work),
            )
        except ReviewError as error:
            sys.exit(f"incus-stt: error: {error}")
    print(comment(found), end="")


if __name__ == "__main__":
    main()
