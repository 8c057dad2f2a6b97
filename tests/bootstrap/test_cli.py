"""Where the Pulumi CLI comes from (bootstrap/lib/pulumi.sh), with fake programs on a PATH."""

from __future__ import annotations

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
    kill ln ls mkdir mktemp mv printf readlink rm sed setsid sha256sum sleep sort tail tar
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
        path.write_text(f'#!/bin/sh\necho "{name} $*" >>{self.noted}\n{textwrap.dedent(body)}\n')
        path.chmod(0o755)

    def pip(self, body: str) -> None:
        self.fake("pip", body, self.root / ".venv" / "bin")

    def go(self, version: str, build: str = BUILD, where: Path | None = None) -> None:
        self.fake("go", GO.format(version=version, build=build), where)

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["sh", str(self.root / "bootstrap" / "cli.sh"), *words],
            env={
                "PATH": str(self.bin),
                "HOME": str(self.root),
                "XDG_CACHE_HOME": str(self.cache.parent),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*words)
        out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(words, process.returncode, out, err)

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
