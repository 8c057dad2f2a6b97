"""What is sent of a path, and the digest that decides whether it is sent again."""

from __future__ import annotations

import compileall
import io
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from declaration import source_files
from declaration.connection import Connection
from declaration.problems import DeclarationError
from declaration.source_files import digest, files
from host.client import HostError
from host.upload import upload


def git(directory: Path, *words: str) -> None:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    subprocess.run(["git", *identity, *words], cwd=directory, check=True, capture_output=True)


def names(directory: Path) -> list[str]:
    """The names of a directory's files that are hashed and sent."""
    return [file.relative_to(directory).as_posix() for file in files(directory)]


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a package, as this project's own."""
    root = tmp_path / "clone"
    (root / "package" / "inner").mkdir(parents=True)
    (root / "package" / "__init__.py").write_text("A = 1\n")
    (root / "package" / "inner" / "lock.txt").write_text("a==1\n")
    git(root.parent, "init", "--quiet", "clone")
    git(root, "add", ".")
    monkeypatch.setattr(source_files, "ROOT", root)
    return root


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """An operator's directory."""
    place = tmp_path / "operator"
    (place / "below").mkdir(parents=True)
    (place / "model.bin").write_bytes(b"weights")
    (place / "below" / "run").write_text("#!/bin/sh\n")
    return place


def test_bytecode_in_the_package_changes_nothing(clone: Path) -> None:
    before = digest(clone / "package")
    assert compileall.compile_dir(clone / "package", quiet=1)
    assert list((clone / "package" / "__pycache__").iterdir())
    assert names(clone / "package") == ["__init__.py", "inner/lock.txt"]
    assert digest(clone / "package") == before


def test_in_the_repository_only_tracked_files_count(clone: Path) -> None:
    before = digest(clone / "package")
    (clone / "package" / "notes.txt").write_text("mine")
    assert digest(clone / "package") == before
    (clone / "package" / "__init__.py").write_text("A = 2\n")
    assert digest(clone / "package") != before
    (clone / "package" / "inner" / "lock.txt").unlink()
    assert names(clone / "package") == ["__init__.py"]


def test_an_operator_s_directory_in_the_clone_counts_whole(clone: Path) -> None:
    (clone / "mine").mkdir()
    (clone / "mine" / "model.bin").write_bytes(b"x")
    assert names(clone / "mine") == ["model.bin"]


def test_a_hook_of_git_does_not_mislead_it(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (clone / "package" / "notes.txt").write_text("mine")
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    assert names(clone / "package") == ["__init__.py", "inner/lock.txt"]


@pytest.mark.parametrize("without", ["git", "a repository"])
def test_without(without: str, clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = digest(clone / "package")
    source_files.tracked.cache_clear()
    if without == "git":
        monkeypatch.setenv("PATH", "/nowhere")
    else:
        (clone / ".git").rename(clone / "gone")
    compileall.compile_dir(clone / "package", quiet=1)
    (clone / "package" / ".lock.txt.swp").write_text("an editor's")
    assert digest(clone / "package") == expected
    (clone / "package" / "notes.txt").write_text("mine")
    assert "notes.txt" in names(clone / "package")


CHANGES: dict[str, Callable[[Path], object]] = {
    "content": lambda place: (place / "model.bin").write_bytes(b"WEIGHTS"),
    "name": lambda place: (place / "model.bin").rename(place / "model2.bin"),
    "place": lambda place: (place / "model.bin").rename(place / "below" / "model.bin"),
    "executable": lambda place: (place / "below" / "run").chmod(0o755),
    "another": lambda place: (place / "empty").write_bytes(b""),
    "hidden": lambda place: (place / ".settings").write_bytes(b""),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_digest_follows_every_change(directory: Path, change: str) -> None:
    before = digest(directory)
    assert len(before) == 12 and int(before, 16) >= 0
    CHANGES[change](directory)
    assert digest(directory) != before


def test_the_digest_is_of_the_names_within(directory: Path, tmp_path: Path) -> None:
    before = digest(directory)
    (directory / "__pycache__").mkdir()
    (directory / "__pycache__" / "a.pyc").write_bytes(b"x")
    (directory / "b.pyc").write_bytes(b"x")
    (directory / "model.bin").chmod(0o600)
    assert digest(directory.rename(tmp_path / "moved")) == before


def test_a_file_is_read_again_only_where_it_changed(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = directory / "model.bin"
    before = digest(file)

    def refuse(*_: object) -> None:
        raise AssertionError("the file is read again")

    with monkeypatch.context() as patch:
        patch.setattr("hashlib.file_digest", refuse)
        assert digest(file) == before
    file.write_bytes(b"WEIGHTS")
    os.utime(file, ns=(1, 1))
    assert digest(file) != before


def test_links_are_followed_and_loops_end(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(b"far away")
    (directory / "linked.bin").symlink_to(tmp_path / "blob")
    (directory / "below" / "loop").symlink_to(directory)
    (directory / "dangling").symlink_to(tmp_path / "nowhere")
    assert names(directory) == ["below/run", "linked.bin", "model.bin"]
    before = digest(directory)
    (tmp_path / "blob").write_bytes(b"changed!")
    assert digest(directory) != before


def test_what_cannot_be_sent_is_an_error_that_says_so(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "empty" / "below").mkdir(parents=True)
    (directory / "a\nb").write_bytes(b"")
    for path, said in (
        (tmp_path / "nothing", "nothing: there is no such file or directory. Check the path."),
        (tmp_path / "empty", "empty: the directory has no files. Add some."),
        (directory, r"the file name 'a\nb' has a line break. Rename the file."),
    ):
        with pytest.raises(DeclarationError) as caught:
            files(path)
        assert said in str(caught.value)


# On its way into a machine


@pytest.fixture
def arrived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a machine unpacks what comes; its ``incus`` keeps the words and the first line."""
    (tmp_path / "bin").mkdir()
    place = tmp_path / "arrived"
    place.mkdir()
    client = tmp_path / "bin" / "incus"
    client.write_text(
        f"#!/bin/sh\nprintf '%s\\n' \"$@\" >{tmp_path}/words\n"
        f"read -r line\nprintf '%s' \"$line\" >{tmp_path}/line\n"
        f"tar -C {place} -xf - && echo done\n"
    )
    client.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setattr("sys.stdin", io.StringIO('{"kind": "upload"}'))
    return place


AGENT = ["python3", "/opt/agent", "apply", "role/files"]


def test_exactly_these_files_arrive(directory: Path, arrived: Path, tmp_path: Path) -> None:
    for name in ("-rf", "two words", "it's", "back\\nslash", "ελ"):
        (directory / name).write_text(name)
    (directory / "__pycache__").mkdir()
    (directory / "__pycache__" / "a.pyc").write_bytes(b"x")
    (directory / "linked.bin").symlink_to("model.bin")
    (directory / "below" / "run").chmod(0o755)
    assert upload(Connection("local"), "lab", "box", AGENT, directory) == "done\n"
    assert names(arrived) == names(directory)
    assert digest(arrived) == digest(directory)
    assert not (arrived / "linked.bin").is_symlink()
    words = (tmp_path / "words").read_text().splitlines()
    assert words == ["--project", "lab", "exec", "box", "--", *AGENT]
    assert (tmp_path / "line").read_text() == '{"kind": "upload"}'


def test_a_file_arrives_under_its_own_name(directory: Path, arrived: Path) -> None:
    upload(Connection("local"), "lab", "box", AGENT, directory / "model.bin")
    assert names(arrived) == ["model.bin"]


def test_an_agent_that_ends_early_is_heard_out(
    directory: Path, arrived: Path, tmp_path: Path
) -> None:
    (directory / "large").write_bytes(bytes(5_000_000))
    (tmp_path / "bin" / "incus").write_text("#!/bin/sh\necho 'role/files: no room.' >&2\nexit 1\n")
    with pytest.raises(HostError, match=r"^role/files: no room\.$"):
        upload(Connection("local"), "lab", "box", AGENT, directory)


@pytest.mark.parametrize(
    "script", ["exec sleep 60", "head -c 300000 /dev/zero >&2; cat >/dev/null"]
)
def test_an_upload_ends(
    directory: Path, arrived: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    """An agent that reads nothing is given up; one that says a lot stops nobody."""
    (directory / "large").write_bytes(bytes(5_000_000))
    (tmp_path / "bin" / "incus").write_text(f"#!/bin/sh\n{script}\n")
    monkeypatch.setattr("host.upload.DEADLINE", 1 if "sleep" in script else 60)
    if "sleep" in script:
        with pytest.raises(HostError, match="did not arrive within 1 s"):
            upload(Connection("local"), "lab", "box", AGENT, directory)
    else:
        assert upload(Connection("local"), "lab", "box", AGENT, directory) == ""
