"""python -m backup save|restore: run by ``bootstrap/backup.sh``."""

from __future__ import annotations

import argparse
import sys

import declaration.interrupt  # noqa: F401  # Ctrl-C ends it with a line
from backup.restore import restore
from backup.save import save
from backup.say import say
from declaration.problems import DeclarationError
from operations.host import OperationError
from operations.removal import shown_size


def main() -> None:
    """Do one of both."""
    parser = argparse.ArgumentParser(prog="backup")
    verbs = parser.add_subparsers(dest="verb", required=True)
    words = verbs.add_parser("save")
    words.add_argument("stack")
    words.add_argument("--file", default="")
    words.add_argument("--whole", action="store_true", help="with the volumes that hold models")
    words = verbs.add_parser("restore")
    words.add_argument("--file", default="")
    words.add_argument("--stack", default="", help="another name for the stack")
    words.add_argument("--connection", default="", help="another stt:connection")
    words.add_argument("--pool", default="", help="another stt:pool")
    words.add_argument("--force", action="store_true", help="replace files that differ")
    options = parser.parse_args()
    if options.verb == "restore":
        restore(options.file, options.stack, options.connection, options.pool, options.force)
        return
    target = save(options.stack, options.file, options.whole)
    written = f"{target} ({shown_size(target.stat().st_size)})"
    say(f"wrote {written}. It holds chats and keys: keep it safe.")


if __name__ == "__main__":
    try:
        main()
    except (DeclarationError, OperationError) as error:
        sys.exit(f"incus-stt: error: {error}")
