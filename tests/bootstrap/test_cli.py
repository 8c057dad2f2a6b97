"""bootstrap/lib/pulumi.sh: where the Pulumi CLI comes from, and where state and passphrase are.

With fake programs on a PATH.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import textwrap
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = """
    sh awk base64 cat chmod cp cut date dirname env find flock grep gzip head hostname id
    kill ln ls mkdir mktemp mv printf readlink rm sed setsid sha1sum sha256sum sleep sort tail tar
    timeout touch tr true
""".split()
#: A `pulumi` that has every stack and no plugin.
PULUMI = 'case "$*" in "plugin install"*) exit 1;; esac'
GO = 'case "$*" in version) echo "go version go{version} linux/amd64";; *) {build};; esac'
BUILD = 'while [ "$1" != -o ]; do shift; done; printf "#!/bin/sh\\n" >"$2"; chmod +x "$2"'


class Checkout:
    """A copy of bootstrap/, and a PATH with fakes that note how they were called."""

    def __init__(self, tmp: Path) -> None:
        self.root, self.bin, self.noted = tmp / "checkout", tmp / "bin", tmp / "calls"
        self.cache = tmp / "cache" / "incus-stt"
        self.cli = self.cache / "pulumi-3.259.0" / "pulumi"
        self.bin.mkdir()
        shutil.copytree(ROOT / "bootstrap", self.root / "bootstrap")
        shutil.copy(ROOT / "Pulumi.yaml", self.root)
        (self.root / "stacks").mkdir()
        for tool in TOOLS:
            if path := shutil.which(tool):
                (self.bin / tool).symlink_to(path)
        self.noted.touch()
        self.fake("curl", "echo 'curl: (6) Could not resolve host' >&2; exit 6")
        self.fake("uname", "echo x86_64")
        self.pip("exit 1")

    def fake(self, name: str, body: str, where: Path | None = None) -> None:
        path = (where or self.bin) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # it may be a link to this machine's own
        path.write_text(f'#!/bin/sh\necho "{name} $*" >>{self.noted}\n{textwrap.dedent(body)}\n')
        path.chmod(0o755)

    def pip(self, body: str) -> None:
        self.fake("pip", body, self.root / ".venv" / "bin")

    def go(self, version: str, build: str = BUILD, where: Path | None = None) -> None:
        self.fake("go", GO.format(version=version, build=build), where)

    def start(self, *words: str, script: str = "cli.sh", **more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["sh", str(self.root / "bootstrap" / script), *words],
            env={
                "PATH": str(self.bin),
                "HOME": str(self.root),
                "XDG_CACHE_HOME": str(self.cache.parent),
                **more,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(
        self, *words: str, script: str = "cli.sh", **more: str
    ) -> subprocess.CompletedProcess[str]:
        process = self.start(*words, script=script, **more)
        out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def backend(self, url: str) -> None:
        """Name a backend in Pulumi.yaml."""
        file = self.root / "Pulumi.yaml"
        file.write_text(file.read_text().replace("file://./state?metadata=skip", url))

    @property
    def passphrase(self) -> Path:
        return self.root / "state" / "passphrase"

    @property
    def calls(self) -> str:
        return self.noted.read_text()


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_the_cli_on_path_is_used_and_nothing_is_fetched(checkout: Checkout) -> None:
    checkout.fake("pulumi", PULUMI)
    checkout.fake("pulumi-language-python", "")
    checkout.fake("pulumi-resource-command", "")
    done = checkout.run()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == 'export PATH="$PATH"'
    assert "PULUMI_DISABLE" not in done.stdout
    assert "curl" not in checkout.calls and "go " not in checkout.calls


def test_the_stack_that_a_shell_gets_is_said_beside_the_shell_code(checkout: Checkout) -> None:
    checkout.fake("pulumi", PULUMI)
    done = checkout.run("dev")
    assert "incus-stt: stack dev" in done.stderr.splitlines()
    assert all(line.startswith("export ") for line in done.stdout.splitlines())


def test_a_stack_s_shell_has_state_passphrase_and_plugins(checkout: Checkout) -> None:
    checkout.fake("pulumi", PULUMI)
    done = checkout.run("dev")
    assert done.returncode == 0, done.stderr
    assert "pulumi stack select dev" in checkout.calls
    passphrase = checkout.root / "state" / "passphrase"
    assert passphrase.stat().st_mode & 0o777 == 0o600
    assert f"export PULUMI_CONFIG_PASSPHRASE_FILE={passphrase}" in done.stdout
    assert "export PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION=true" in done.stdout
    assert done.stdout.splitlines()[0].endswith(f":{checkout.root}/plugins")
    assert passphrase.read_text() not in done.stdout + done.stderr


def test_a_stack_that_is_selected_already_is_not_selected_again(checkout: Checkout) -> None:
    checkout.fake("pulumi", PULUMI)
    name = hashlib.sha1(f"{checkout.root}/Pulumi.yaml".encode(), usedforsecurity=False).hexdigest()
    workspace = checkout.root / ".pulumi" / "workspaces" / f"stt-{name}-workspace.json"
    workspace.parent.mkdir(parents=True)
    noted = {"stacks": {"file://./state?metadata=skip": "organization/stt/dev"}}
    workspace.write_text(json.dumps(noted, indent=4))
    state = checkout.root / "state" / ".pulumi" / "stacks" / "stt" / "dev.json"
    state.parent.mkdir(parents=True)
    (checkout.root / "state" / "passphrase").write_text("an earlier one")
    assert checkout.run("dev").returncode == 0  # it has no state
    assert checkout.calls.count("pulumi stack select dev") == 1
    state.touch()
    assert checkout.run("dev").returncode == 0
    assert checkout.calls.count("pulumi stack select dev") == 1
    assert checkout.run("cpu").returncode == 0
    assert "pulumi stack select cpu" in checkout.calls


@pytest.mark.parametrize("there", [False, True], ids=["new", "there already"])
def test_nobody_else_reads_the_state(checkout: Checkout, there: bool) -> None:
    """Pulumi writes its files for everybody to read."""
    checkout.fake("pulumi", PULUMI)
    state = checkout.root / "state"
    if there:
        state.mkdir()
        state.chmod(0o755)
    done = checkout.run("dev")
    assert done.returncode == 0 and "another user" not in done.stderr
    assert state.stat().st_mode & 0o777 == 0o700


def test_pulumi_s_own_plugin_is_fetched_where_it_can_be(checkout: Checkout) -> None:
    checkout.fake("pulumi", "")
    checkout.fake("pulumi-language-python", "")
    done = checkout.run()
    assert "pulumi plugin install resource command 1.2.1" in checkout.calls
    assert "/plugins" not in done.stdout


def test_a_plugin_that_cannot_be_fetched_is_not_tried_again_within_an_hour(
    checkout: Checkout,
) -> None:
    checkout.fake("pulumi", PULUMI)
    for _ in range(2):
        assert checkout.run().returncode == 0
    assert checkout.calls.count("plugin install") == 1
    an_hour_ago = time.time() - 3700
    os.utime(checkout.cache / "command-not-reached", (an_hour_ago, an_hour_ago))
    checkout.run()
    assert checkout.calls.count("plugin install") == 2


def test_the_release_is_taken_where_the_site_is_reached(checkout: Checkout) -> None:
    release = checkout.root / "release" / "pulumi"
    checkout.fake("pulumi", "", release)
    checkout.fake("pulumi-language-python", "", release)
    checkout.fake(
        "curl",
        f"""
        while [ "$1" != -o ]; do shift; done
        case $2 in
            */sums) name=pulumi-v3.259.0-linux-x64.tar.gz
                tar -czf {checkout.root}/$name -C {release.parent} pulumi
                (cd {checkout.root} && sha256sum $name) >"$2";;
            *) cp {checkout.root}/*.tar.gz "$2";;
        esac""",
    )
    checkout.fake("uname", "echo x86_64")
    done = checkout.run()
    assert done.returncode == 0, done.stderr
    assert checkout.cli.exists() and "go " not in checkout.calls
    assert f"export PATH={checkout.cli.parent}:" in done.stdout


def test_a_release_with_a_wrong_checksum_is_not_used(checkout: Checkout) -> None:
    checkout.fake("curl", 'while [ "$1" != -o ]; do shift; done; echo x >"$2"')
    done = checkout.run()
    assert done.returncode == 1
    assert not checkout.cli.exists()


def test_it_is_built_where_the_site_is_out_of_reach_and_kept(checkout: Checkout) -> None:
    checkout.go("1.25.11")
    done = checkout.run()
    assert done.returncode == 0, done.stderr
    assert checkout.cli.exists()
    assert "Pulumi's site cannot be reached: curl: (6)" in done.stderr
    assert "building the Pulumi CLI 3.259.0 with Go 1.25.11" in done.stderr
    assert "pip" not in checkout.calls
    assert [p.name for p in checkout.cache.glob("pulumi-work*")] == []
    built = checkout.calls.count("go build")
    assert "export PATH=" in checkout.run().stdout
    assert checkout.calls.count("go build") == built == 1


def test_the_site_is_asked_once_an_hour(checkout: Checkout) -> None:
    checkout.go("1.26.8", "exit 1")
    for _ in range(2):
        assert checkout.run().returncode == 1
    assert checkout.calls.count("curl ") == 1


@pytest.mark.parametrize("version", ["1.25.10", "1.9.9", ""])
def test_a_go_that_is_too_old_or_none_gives_way_to_pypi_s(checkout: Checkout, version: str) -> None:
    if version:
        checkout.go(version, "exit 1")
    new = checkout.root / "new" / "go" / "bin"
    checkout.go("1.26.6", where=new)
    checkout.pip(
        'while [ "$1" != --target ]; do shift; done; mkdir -p "$2"; '
        f'cp -r {checkout.root}/new/go "$2/go"'
    )
    done = checkout.run()
    assert done.returncode == 0, done.stderr
    assert checkout.cli.exists()
    assert "--require-hashes" in checkout.calls
    assert "with Go 1.26.6" in done.stderr
    assert (f"only {version}" in done.stderr) == bool(version)
    assert not (checkout.cache / "go").exists()  # the toolchain and its caches are gone


def test_a_build_that_fails_says_why_and_leaves_nothing(checkout: Checkout) -> None:
    checkout.go("1.26.8", "echo 'dial tcp: lookup proxy: no such host' >&2; exit 1")
    done = checkout.run()
    assert done.returncode == 1
    assert "no such host" in done.stderr and "go env GOPROXY" in done.stderr
    assert "pulumi.log" in done.stderr
    assert not checkout.cli.parent.exists()
    assert list(checkout.cache.glob("pulumi-work*")) == []


def test_no_go_from_pypi_is_an_error(checkout: Checkout) -> None:
    done = checkout.run()
    assert done.returncode == 1
    assert "install Go 1.25.11 or newer" in done.stderr


def test_two_at_once_build_once(checkout: Checkout) -> None:
    # It ends by itself too, where the test does not get that far.
    waits = f"for i in $(seq 600); do [ ! -e {checkout.root}/go-on ] || break; sleep 0.1; done"
    checkout.go("1.26.8", f"{waits}; {BUILD}")
    first = checkout.start()
    deadline = time.monotonic() + 30
    while "go build" not in checkout.calls and time.monotonic() < deadline:
        time.sleep(0.05)
    second = checkout.start()
    assert second.stderr and "waiting for it" in second.stderr.readline()
    (checkout.root / "go-on").touch()
    for process in (first, second):
        process.communicate(timeout=60)
        assert process.returncode == 0
    assert checkout.calls.count("go build") == 1


def test_who_waits_for_another_build_waits_with_a_deadline(checkout: Checkout) -> None:
    checkout.cache.mkdir(parents=True)
    with (checkout.cache / "pulumi.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = checkout.run(STT_LOCK_DEADLINE="1")
    assert (done.returncode, done.stderr.splitlines()) == (
        1,
        [
            "incus-stt: another process is getting the Pulumi CLI, waiting for it",
            "incus-stt: error: another process is getting the Pulumi CLI, and did not finish "
            "within 1 s. See what it does ('ps aux'), end it if it hangs, then run this again.",
        ],
    )


def test_a_build_that_is_ended_leaves_nothing(checkout: Checkout) -> None:
    checkout.go("1.26.8", "sleep 300")
    process = checkout.start()
    deadline = time.monotonic() + 30
    while "go build" not in checkout.calls and time.monotonic() < deadline:
        time.sleep(0.05)
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode == 143
    assert not checkout.cli.parent.exists()
    assert list(checkout.cache.glob("pulumi-work*")) == []


SHARED = "postgres://stt@db.example.com:5432/stt?sslmode=verify-full"


@pytest.mark.parametrize(
    "url",
    [
        "postgres://stt:secret-word@db.example.com/stt",
        "postgres://stt:secret/word@db.example.com/stt",
        "postgres://stt@db.example.com/stt?sslmode=require&password=secret-word",
        "postgres://db.example.com/stt?password=secret-word",
    ],
)
@pytest.mark.parametrize("script", ["cli.sh", "pulumi.sh"])
def test_a_backend_with_a_password_is_refused(checkout: Checkout, url: str, script: str) -> None:
    checkout.fake("pulumi", PULUMI)
    words = ["dev"] if script == "cli.sh" else ["dev", "up"]
    done = checkout.run(*words, script=script, PULUMI_BACKEND_URL=url)
    assert done.returncode == 1 and "~/.pgpass" in done.stderr
    checkout.backend(f'"{url}"')
    done = checkout.run(*words, script=script)
    assert done.returncode == 1 and "Pulumi.yaml" in done.stderr
    assert "secret" not in done.stdout + done.stderr
    assert "stack" not in checkout.calls


@pytest.mark.parametrize("written", ["{{url: '{}'}}", "\n  {{url: '{}'}}", "\n  url: >-\n    {}"])
def test_a_backend_that_cannot_be_read_is_refused(checkout: Checkout, written: str) -> None:
    """Pulumi would take it, with its password."""
    checkout.fake("pulumi", PULUMI)
    file = checkout.root / "Pulumi.yaml"
    text = written.format("postgres://stt:secret-word@db.example.com/stt")
    lines = [line for line in file.read_text().splitlines() if "./state?" not in line]
    file.write_text("\n".join(lines).replace("backend:", f"backend: {text}") + "\n")
    done = checkout.run("dev", "up", script="pulumi.sh")
    assert done.returncode == 1 and "two lines" in done.stderr
    assert "secret" not in done.stdout + done.stderr
    assert "stack" not in checkout.calls


@pytest.mark.parametrize("quote", ["", "'", '"'])
def test_no_passphrase_is_made_for_a_shared_backend(checkout: Checkout, quote: str) -> None:
    checkout.fake("pulumi", PULUMI)
    checkout.backend(f"{quote}{SHARED}{quote} # the team's")
    done = checkout.run("dev")
    assert done.returncode == 1 and done.stdout == ""
    assert "there is no passphrase here" in done.stderr
    assert "PULUMI_CONFIG_PASSPHRASE_FILE" in done.stderr and "state/passphrase" in done.stderr
    assert not checkout.passphrase.exists()
    assert checkout.run("dev", PULUMI_CONFIG_PASSPHRASE="x").returncode == 0
    checkout.passphrase.write_text("x")
    assert f"PASSPHRASE_FILE={checkout.passphrase}" in checkout.run("dev").stdout


def test_the_environment_s_backend_goes_before_the_project_s(checkout: Checkout) -> None:
    checkout.fake("pulumi", PULUMI)
    done = checkout.run("dev", PULUMI_BACKEND_URL=SHARED)
    assert done.returncode == 1 and "there is no passphrase here" in done.stderr
    checkout.backend(SHARED)
    done = checkout.run("dev", PULUMI_BACKEND_URL="file://./state?metadata=skip")
    assert done.returncode == 0 and checkout.passphrase.exists()


def test_secrets_that_need_no_passphrase(checkout: Checkout) -> None:
    checkout.fake("pulumi", PULUMI)
    service = "https://api.pulumi.com"
    assert checkout.run("dev", PULUMI_BACKEND_URL=service).returncode == 0
    (checkout.root / "stacks" / "Pulumi.dev.yaml").write_text("secretsprovider: awskms://x\n")
    assert checkout.run("dev", PULUMI_BACKEND_URL="s3://a-bucket").returncode == 0
    assert not checkout.passphrase.exists()


@pytest.mark.parametrize(
    "file", ["stacks/Pulumi.dev.yaml", "state/.pulumi/stacks/stt/dev.json"], ids=["salt", "state"]
)
def test_no_passphrase_is_made_for_a_stack_that_has_one(checkout: Checkout, file: str) -> None:
    checkout.fake("pulumi", PULUMI)
    place = checkout.root / file
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("encryptionsalt: v1:x\n")
    done = checkout.run("dev")
    assert done.returncode == 1 and not checkout.passphrase.exists()
    assert "PULUMI_CONFIG_PASSPHRASE_FILE" in done.stderr and "docs/team.md" in done.stderr
    assert checkout.run("other").returncode == 0


def test_a_backend_that_does_not_answer_is_no_empty_one(checkout: Checkout) -> None:
    checkout.fake("pulumi", 'case "$*" in *--show-name*) echo refused >&2; exit 1;; esac')
    checkout.backend(SHARED)
    done = checkout.run("dev", "preview", script="pulumi.sh")
    assert done.returncode == 1
    assert "the backend does not answer: refused" in done.stderr
    assert f"stack dev, whose state others share (its locks: docs/team.md): {SHARED}" in done.stderr
    assert "stack init" not in checkout.calls


@pytest.mark.parametrize("none", ["exit 6", "echo \"no stack named 'dev' found\"; exit 255"])
def test_a_stack_that_is_not_in_a_shared_backend_is_not_made_there_for_a_preview(
    checkout: Checkout, none: str
) -> None:
    checkout.fake("pulumi", f'case "$*" in *--show-name*) {none};; *init*|preview*) env >&2;; esac')
    checkout.backend(SHARED)
    done = checkout.run("dev", "preview", script="pulumi.sh")
    assert done.returncode == 0, done.stderr
    used = {line for line in done.stderr.splitlines() if line.startswith("PULUMI_BACKEND_URL=")}
    assert len(used) == 1 and used.pop().startswith("PULUMI_BACKEND_URL=file:///")


@pytest.mark.parametrize(("url", "gone"), [("file://./state", True), (SHARED, False)])
def test_only_an_own_state_s_dead_locks_go(checkout: Checkout, url: str, gone: bool) -> None:
    checkout.fake("pulumi", PULUMI)
    checkout.fake("hostname", "echo here")
    with subprocess.Popen(["true"]) as ended:
        pass
    lock = checkout.root / "state/.pulumi/locks/organization/stt/dev/x.json"
    lock.parent.mkdir(parents=True)
    lock.write_text(f'{{"pid": {ended.pid}, "hostname": "here"}}')
    checkout.passphrase.write_text("x")
    done = checkout.run("dev", "outputs", script="pulumi.sh", PULUMI_BACKEND_URL=url)
    assert done.returncode == 0, done.stderr
    assert lock.exists() != gone


@pytest.mark.parametrize(
    ("pulumi", "selected"),
    [
        ('case "$*" in *--show-name*) echo mine;; esac', "mine"),
        ('case "$*" in *--show-name*) exit 1;; esac', "dev"),
        ("echo 'connection refused' >&2; exit 1", ""),
    ],
    ids=["selected", "none is", "cannot be told"],
)
def test_the_selected_stack_is_no_guess(checkout: Checkout, pulumi: str, selected: str) -> None:
    assert checkout.run(script="selected.sh").stdout == "dev\n"  # there is no Pulumi yet
    checkout.fake("pulumi", pulumi)
    checkout.backend(SHARED)
    done = checkout.run(script="selected.sh")
    assert done.stdout.strip() == selected
    assert (done.returncode == 0) == bool(selected)
    assert ("connection refused" in done.stderr) != bool(selected)


#: A `pulumi` whose stack has an stt_curl of so many characters, and ends an `up` as it is told.
WHOLE = 'case "$*" in *"output stt_curl"*) {curl};; up*) echo outputs; exit {status};; esac'


@pytest.mark.parametrize(
    ("length", "status", "words", "shown"),
    [
        (150, 0, "", False),
        (151, 0, "", True),
        (151, 255, "", False),
        (151, 0, "--preview-only", False),
        (151, 0, "--suppress-outputs", False),
        (0, 0, "", False),
    ],
)
def test_a_line_that_pulumi_cuts_off_is_printed_whole(
    checkout: Checkout, length: int, status: int, words: str, shown: bool
) -> None:
    line = 'echo "Authorization: Bearer $STT_API_KEY"|curl -H@- -F '.ljust(length, "x")
    curl = f"printf '%s\\n' '{line}'" if length else "echo 'no such output' >&2; exit 255"
    checkout.fake("pulumi", WHOLE.format(curl=curl, status=status))
    shutil.copy(ROOT / "Makefile", checkout.root)
    make = shutil.which("make")
    assert make
    # As `make up`, once the host is ready.
    done = subprocess.run(
        [make, "-s", "-o", "setup", "up", "STACK=dev", f"ARGS={words}"],
        cwd=checkout.root,
        env={"PATH": str(checkout.bin), "HOME": str(checkout.root)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == (2 if status else 0), done.stderr
    assert done.stdout == "outputs\n"  # what is for programs stays as it was
    said = f"incus-stt: the whole stt_curl:\n{line}\n"
    assert done.stderr.endswith(said) if shown else "whole" not in done.stderr
    assert "no such output" not in done.stderr and done.stderr.count("stack dev") == 1
