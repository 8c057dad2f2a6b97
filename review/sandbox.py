"""A place without network, files and rights, for programs that nobody has looked at.

Bubblewrap makes it: the system's programs, Python's packages and the Pulumi CLI, which it can only
read; the commit's own directories; a /tmp of its own; no other process, and no network but its own
loopback, by which Pulumi and its plugins speak. In it everything runs as nobody. The review, which
puts the comment together, stays outside.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

#: ``nobody`` on Debian, Ubuntu and Fedora.
USER = 65534
_SYSTEM = "/usr"
_LINKS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_ISOLATION = (
    *("--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"),
    *("--die-with-parent", "--new-session"),
    *("--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"),
)
_NOBODY = (
    *("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"),
    *("--inh-caps=-all", "--no-new-privs", "--"),
)


class SandboxError(Exception):
    """The sandbox cannot be made; the text is for the operator."""


def check_sandbox() -> None:
    """See that this machine can make one.

    Raises:
        SandboxError: this is not root, or a program is missing.
    """
    if os.geteuid() != 0:
        raise SandboxError("SANDBOX=1 needs root, to run programs as nobody. Use sudo.")
    for program, package in (("bwrap", "bubblewrap"), ("setpriv", "util-linux")):
        if shutil.which(program) is None:
            raise SandboxError(f"SANDBOX=1 needs {program}. Run: apt-get install {package}")


def give(*directories: Path) -> None:
    """Make nobody the owner of directories and of all that is in them."""
    for directory in directories:
        os.chown(directory, USER, USER)
        for place, folders, files in os.walk(directory):
            for name in (*folders, *files):
                os.chown(Path(place, name), USER, USER, follow_symlinks=False)


def _tools(root: Path, path: str) -> Iterator[Path]:
    """Where what runs in it lies, outside of the system's own directory."""
    yield root / ".venv"
    yield root / "plugins"
    yield Path(sys.base_prefix)
    for entry in path.split(os.pathsep):
        # Only what has to do with Pulumi; a directory of PATH may hold anything.
        for program in Path(entry).glob("pulumi*") if entry else ():
            yield program
            yield program.resolve()


def wrap(
    command: Sequence[str], root: Path, own: Sequence[Path], path: str, more: Sequence[Path] = ()
) -> list[str]:
    """A command as it runs in the sandbox.

    ``own``: the directories that it may write; ``path``: the variable PATH; ``more``: what else it
    may read.
    """
    words = ["bwrap", *_ISOLATION, "--ro-bind", _SYSTEM, _SYSTEM, "--ro-bind", "/etc", "/etc"]
    for name in _LINKS:
        place = Path("/", name)
        if place.is_symlink():
            words += ["--symlink", os.readlink(place), str(place)]
        elif place.is_dir():
            words += ["--ro-bind", str(place), str(place)]
    words += ["--proc", "/proc", "--dev", "/dev", "--perms", "1777", "--tmpfs", "/tmp"]  # noqa: S108
    tools = [
        tool
        for tool in dict.fromkeys((*_tools(root, path), *more))
        if tool.exists() and not tool.is_relative_to(_SYSTEM)
    ]
    # By itself Bubblewrap makes folders that only root can enter.
    above = {parent for place in (*tools, *own) for parent in place.parents} - {Path("/tmp")}  # noqa: S108
    for folder in sorted(above)[1:]:
        words += ["--perms", "0755", "--dir", str(folder)]
    for tool in tools:
        words += ["--ro-bind", str(tool), str(tool)]
    for each in own:
        words += ["--bind", str(each), str(each)]
    return [*words, "--chdir", str(own[0]), "--", *_NOBODY, *command]
