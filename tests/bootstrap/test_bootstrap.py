"""The decisions of bootstrap/incus.sh and image.sh, with fake programs on a PATH of their own."""

import os
import shutil
import socket
import subprocess
import textwrap
from pathlib import Path

import pytest

from tests.server.server import wait

BOOTSTRAP = Path(__file__).resolve().parents[2] / "bootstrap"
TOOLS = """sh awk cat cut chmod date df dirname env find flock grep head id kill ln ls mkdir mktemp
    mv rm sed setsid sleep sort tail timeout touch tr true uname""".split()

DEB822 = """\
Types: deb deb-src
# a comment in the stanza
URIs: http://mirror.example.org/debian
Suites: bookworm bookworm-updates
Components: main
  contrib
Signed-By: /usr/share/keyrings/example.gpg

Types: deb
URIs: http://security.example.org/debian-security
Suites: bookworm-security
Components: main

Enabled: no
Types: deb
URIs: http://off.example.org/debian
Suites: bookworm
Components: main
"""
ONE_LINE = """\
# deb http://off.example.org/debian bookworm main
deb cdrom:[Debian]/ bookworm main
deb-src http://mirror.example.org/debian bookworm main
deb [a=b signed-by=/usr/share/keyrings/example.gpg] http://mirror.example.org/debian bookworm main
deb http://security.example.org/debian-security bookworm-security main # x
"""
KEY = """\
Types: deb
URIs: http://mirror.example.org/debian
Suites: bookworm
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mDMEY865UxYJKwYBBAHaRw8BAQdAd7Z0srwuhlB6JKFkcf4HU4SSS/xcRfwEQWzr
 -----END PGP PUBLIC KEY BLOCK-----
"""
BOOKWORM = """\
ID=debian
NAME="Debian GNU/Linux"
VERSION_ID="12"
VERSION_CODENAME=bookworm
PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"
"""
TRIXIE = BOOKWORM.replace("12", "13").replace("bookworm", "trixie")
NOBLE = """\
ID=ubuntu
NAME="Ubuntu"
VERSION_ID="24.04"
VERSION_CODENAME=noble
PRETTY_NAME="Ubuntu 24.04"
"""
FEDORA = 'ID=fedora\nNAME="Fedora"\nVERSION_ID="43"\nPRETTY_NAME="Fedora 43"\n'


class Host:
    """A made-up host: a file tree, and a PATH with fakes that note how they were called."""

    def __init__(self, tmp: Path) -> None:
        self.root, self.bin, self.calls_file = tmp / "root", tmp / "bin", tmp / "calls"
        self.bin.mkdir()
        for tool in TOOLS:
            if path := shutil.which(tool):
                (self.bin / tool).symlink_to(path)
        for folder in ("etc/apt/sources.list.d", "var/lib/apt/lists", "run"):
            (self.root / folder).mkdir(parents=True)
        self.calls_file.touch()
        self.write("etc/os-release", BOOKWORM)
        self.write("etc/apt/sources.list.d/debian.sources", DEB822)
        self.write("var/lib/apt/lists/m_dists_bookworm_InRelease", "")
        self.write("etc/subuid", "bob:100000:65536")
        self.write("etc/subgid", "root:5:5\n")
        self.calls = ""
        self.env: dict[str, str] = {}
        self.user(0)
        self.fake("systemctl")
        self.fake("dpkg", "echo amd64")
        self.fake("apt-cache", "echo '  Candidate: (none)'")
        self.fake("apt-get")

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def read(self, path: str) -> str:
        return (self.root / path).read_text()

    def fake(self, name: str, body: str = "", where: Path | None = None) -> None:
        path = where or self.bin / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_text(
            f'#!/bin/sh\necho "{name} $*" >>{self.calls_file}\n{textwrap.dedent(body)}\n'
        )
        path.chmod(0o755)

    def user(self, uid: int, groups: str = "users") -> None:
        self.fake("id", f'case $1 in -u) echo {uid};; -un) echo bob;; -nG) echo "{groups}";; esac')

    def incus(
        self,
        up: bool = True,
        pools: str = "default,dir",
        answer: str = "",
        rc: int = 1,
        images: str = "",
        listed: str = "",
        members: str = "",
    ) -> None:
        """images: the names here; answer, rc: of asking a server; listed: of a filtered list;
        members: of a cluster.
        """
        state = self.root / "incus-is-up"
        if up:
            state.touch()
        self.fake(
            "incus",
            f"""
            [ "$1" != --project ] || shift 2
            case "$*" in
                "query /1.0") [ -e {state} ] && echo '{{"server_version": "6.0.4"}}';;
                "admin waitready"*)
                    for n in 1 2 3 4 5; do [ ! -e {state} ] || exit 0; sleep 0.1; done
                    exit 1;;
                "storage list"*) echo "{pools}";;
                "cluster list"*) [ -n "{members}" ] && printf '%s\\n' {members};;
                "image list"*) echo "{listed}";;
                "image info "*:*) echo '{answer}' >&2; exit {rc};;
                "image info "*) case " {images} " in *" $3 "*) ;; *) exit 1;; esac;;
            esac""",
        )

    def daemon(self, body: str = "") -> None:
        self.fake("incusd", body, self.root / "usr/libexec/incus/incusd")
        self.fake("lxcfs")

    def run(self, script: str, *args: str) -> subprocess.CompletedProcess[str]:
        env = {
            "PATH": str(self.bin),
            "STT_ROOT": str(self.root),
            "TMPDIR": str(self.root / "run"),
            **self.env,
        }
        done = subprocess.run(
            ["sh", BOOTSTRAP / script, *args],
            env=env,
            text=True,
            capture_output=True,
            timeout=60,
        )
        self.calls = self.calls_file.read_text()
        return done


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def installs(host: Host) -> None:
    """apt-get install brings a client and a daemon; the daemon is up once it was started."""
    host.incus(up=False, pools="")
    (host.bin / "incus").rename(host.bin / "incus.off")
    host.fake(
        "apt-get",
        f"""case "$*" in *install*)
        mv {host.bin}/incus.off {host.bin}/incus; mkdir -p {host.root}/usr/libexec/incus
        printf '#!/bin/sh\\ntouch {host.root}/incus-is-up; sleep 6\\n' \\
            >{host.root}/usr/libexec/incus/incusd
        chmod +x {host.root}/usr/libexec/incus/incusd;; esac""",
    )
    host.fake("lxcfs")


# incus.sh


def test_nothing_to_do_is_silent(host: Host) -> None:
    host.user(1000)
    host.incus()
    done = host.run("incus.sh")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert "apt-get" not in host.calls and "storage create" not in host.calls


def test_pool_is_made_only_where_there_is_none(host: Host) -> None:
    host.user(1000)
    host.incus(pools="")
    host.env["STT_POOL"] = "fast"
    done = host.run("incus.sh")
    assert done.returncode == 0 and "incus storage create fast dir" in host.calls
    assert "incus-stt: making the storage pool fast" in done.stderr


def test_a_pool_of_a_cluster_is_made_on_each_member_first(host: Host) -> None:
    host.user(1000)
    host.incus(pools="", members="node1 node2")
    assert host.run("incus.sh").returncode == 0
    made = [line for line in host.calls.splitlines() if "storage create" in line]
    create = "incus storage create default dir"
    assert made == [f"{create} --target node1", f"{create} --target node2", create]


def test_not_installed_on_debian_12_as_root(host: Host) -> None:
    installs(host)
    done = host.run("incus.sh")
    assert done.returncode == 0, done.stderr
    assert host.read("etc/apt/sources.list.d/incus-stt-backports.sources") == (
        "Types: deb\nURIs: http://mirror.example.org/debian\nSuites: bookworm-backports\n"
        "Components: main\nSigned-By: /usr/share/keyrings/example.gpg\n"
    )
    assert (
        "install --no-install-recommends -t bookworm-backports incus-base incus-client dnsmasq-base"
        in host.calls
    )
    assert host.read("etc/subuid") == "bob:100000:65536\nroot:1000000:1000000000\n"
    assert host.read("etc/subgid") == "root:5:5\n"
    assert "incus storage create default dir" in host.calls
    assert all(line.startswith("incus-stt: ") for line in done.stderr.splitlines())
    assert "Incus 6.0.4 is ready" in done.stderr


@pytest.mark.parametrize(("release", "package"), [(TRIXIE, "incus-base"), (NOBLE, "incus")])
def test_own_suite_has_incus(host: Host, release: str, package: str) -> None:
    host.write("etc/os-release", release)
    installs(host)
    host.fake("apt-cache", f'[ "$2" != {package} ] || echo "  Candidate: 6.0"')
    done = host.run("incus.sh")
    assert done.returncode == 0, done.stderr
    assert f"--no-install-recommends {package} incus-client" in host.calls
    assert " update" in host.calls, "this suite's lists were missing"
    assert not (host.root / "etc/apt/sources.list.d/incus-stt-backports.sources").exists()


def test_configured_backports_are_used_as_they_are(host: Host) -> None:
    installs(host)
    host.fake(
        "apt-cache",
        'echo "  Candidate: 6.0"; echo "incus-base | 6.0 | http://m bookworm-backports/main"',
    )
    assert host.run("incus.sh").returncode == 0
    assert "-t bookworm-backports" in host.calls
    assert not (host.root / "etc/apt/sources.list.d/incus-stt-backports.sources").exists()


@pytest.mark.parametrize(
    ("name", "text", "key"),
    [
        ("debian.list", ONE_LINE, "Signed-By: /usr/share/keyrings/example.gpg\n"),
        ("debian.sources", KEY, "Signed-By:\n" + KEY.split("Signed-By:\n")[1]),
        (
            "debian.sources",
            DEB822.replace(
                "http://mirror.example.org/debian", "mirror+file:/etc/apt/mirrors/debian.list"
            ),
            "Signed-By: /usr/share/keyrings/example.gpg\n",
        ),
    ],
)
def test_backports_from_every_way_to_write_sources(
    host: Host, name: str, text: str, key: str
) -> None:
    (host.root / "etc/apt/sources.list.d/debian.sources").unlink()
    host.write(f"etc/apt/sources.list.d/{name}", text)
    installs(host)
    assert host.run("incus.sh").returncode == 0
    uri = (
        "mirror+file:/etc/apt/mirrors/debian.list"
        if "mirror+file" in text
        else "http://mirror.example.org/debian"
    )
    assert host.read("etc/apt/sources.list.d/incus-stt-backports.sources") == (
        f"Types: deb\nURIs: {uri}\nSuites: bookworm-backports\nComponents: main\n{key}"
    )


def test_without_root_the_commands_are_printed_and_nothing_is_done(host: Host) -> None:
    host.user(1000)
    done = host.run("incus.sh")
    assert done.returncode == 3
    for part in (
        "sudo sh ",
        "cat > ",
        "bookworm-backports",
        "apt-get",
        " install --no-install-recommends",
        "echo root:1000000:1000000000 >> ",
        "--group incus-admin",
        "incus admin waitready",
        "incus storage create default dir",
    ):
        assert part in done.stderr
    assert "apt-get" not in host.calls
    assert host.read("etc/subuid") == "bob:100000:65536"


def test_other_distributions_are_told_what_to_do(host: Host) -> None:
    host.write("etc/os-release", FEDORA)
    done = host.run("incus.sh")
    assert (
        done.returncode == 1
        and "Fedora 43 is neither" in done.stderr
        and "run this again" in done.stderr
    )


@pytest.mark.parametrize(
    ("groups", "step"),
    [("users", "sudo usermod -aG incus-admin bob"), ("users incus-admin", "Log in again")],
)
def test_no_permission_for_the_socket(host: Host, groups: str, step: str) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write to every socket")
    host.user(1000, groups)
    host.incus(up=False)
    folder = host.root / "var/lib/incus"
    folder.mkdir(parents=True)
    there = os.getcwd()
    os.chdir(folder)  # a socket's path has 107 characters at most
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind("unix.socket")
    os.chdir(there)
    (folder / "unix.socket").chmod(0o000)
    done = host.run("incus.sh")
    assert done.returncode == 3 and step in done.stderr
    assert "apt-get" not in done.stderr


def test_installed_but_stopped_is_started_with_systemd(host: Host) -> None:
    host.incus(up=False)
    host.daemon()
    (host.root / "run/systemd/system").mkdir(parents=True)
    host.fake("systemctl", f"touch {host.root}/incus-is-up")
    done = host.run("incus.sh")
    assert done.returncode == 0, done.stderr
    assert "systemctl start incus.socket incus.service" in host.calls
    assert "apt-get" not in host.calls


def test_installed_but_stopped_is_started_without_systemd(host: Host) -> None:
    host.incus(up=False)
    host.daemon(f"pwd >{host.root}/cwd; touch {host.root}/incus-is-up; sleep 6")
    done = host.run("incus.sh")
    assert done.returncode == 0, done.stderr
    assert host.read("cwd") == "/\n"  # not a directory that somebody may delete
    assert "incusd --group incus-admin" in host.calls
    wait(lambda: f"lxcfs {host.root}/var/lib/lxcfs" in host.calls)  # beside
    assert "systemctl" not in host.calls


@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("lxcfs") or not Path("/dev/fuse").exists(),
    reason="needs root, lxcfs and FUSE",
)
def test_the_mount_of_an_lxcfs_that_was_killed_is_replaced(host: Host) -> None:
    host.incus(up=False)
    host.daemon(f"touch {host.root}/incus-is-up; sleep 6")
    (host.bin / "umount").symlink_to("/usr/bin/umount")
    mount = host.root / "var/lib/lxcfs"
    mount.mkdir(parents=True)
    command = ["lxcfs", "--pidfile", str(host.root / "lxcfs.pid"), str(mount)]
    real = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait(lambda: os.path.ismount(mount))
        real.kill()
        real.wait()
        with pytest.raises(OSError, match="not connected"):
            os.listdir(mount)
        done = host.run("incus.sh")
        assert done.returncode == 0, done.stderr
        assert os.listdir(mount) == []
        wait(lambda: f"lxcfs {mount}" in host.calls)  # beside
        assert "removing the mount of an lxcfs that has ended" in done.stderr
    finally:
        real.kill()
        subprocess.run(["umount", "-l", mount], capture_output=True)


def test_a_daemon_that_ends_shows_its_log(host: Host) -> None:
    host.incus(up=False)
    host.daemon("echo database is broken; exit 1")
    done = host.run("incus.sh")
    assert done.returncode == 1
    assert "    database is broken" in done.stderr and "did not start" in done.stderr


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        ("E: write: No space left on device", "the disk is full"),
        ("E: Could not get lock /var/lib/dpkg/lock", "another package manager"),
        ("E: dpkg was interrupted, you must", "sudo dpkg --configure -a"),
        ("E: Unable to locate package incus-base", "    E: Unable to locate"),
    ],
)
def test_apt_fails(host: Host, output: str, sentence: str) -> None:
    host.fake("apt-get", f'case "$*" in *install*) echo "{output}"; exit 100;; esac')
    done = host.run("incus.sh")
    assert done.returncode == 1
    assert sentence in done.stderr and f"{host.root}/var/log/incus-stt/incus.log" in done.stderr


def test_a_remote_that_does_not_answer_installs_nothing_here(host: Host) -> None:
    host.incus(up=False)
    host.env["INCUS_REMOTE"] = "far"
    done = host.run("incus.sh")
    assert (
        done.returncode == 1
        and "remote far does not answer" in done.stderr
        and "apt-get" not in host.calls
    )


@pytest.mark.parametrize("asked", ["query /1.0", "storage list"])
def test_an_incus_that_hangs_is_named(host: Host, asked: str) -> None:
    host.incus()
    program = host.bin / "incus"
    first, rest = program.read_text().split("\n", 1)
    program.write_text(f'{first}\ncase "$*" in "{asked}"*) exec sleep 60;; esac\n{rest}')
    host.env["STT_INCUS_DEADLINE"] = "1"
    done = host.run("incus.sh")
    assert done.returncode == 1 and f"'incus {asked}" in done.stderr
    assert "did not end within 1 s" in done.stderr and "then run this again" in done.stderr
    assert "apt-get" not in host.calls and "systemctl" not in host.calls
    if asked == "query /1.0":
        done = host.run("image.sh", "images:debian/12")
        assert done.returncode == 1 and "Incus does not answer" in done.stderr


# image.sh

FAILED = "Error: Failed getting image: "
UNREACHABLE = f'{FAILED}Failed parsing stream: Get "https://images.example.org/": no such host'


@pytest.mark.parametrize("args", [(), ("",), ("a", "b")])
def test_image_usage(host: Host, args: tuple[str, ...]) -> None:
    assert host.run("image.sh", *args).returncode == 2


@pytest.mark.parametrize("name", ["foo", "local:foo"])
def test_local_alias(host: Host, name: str) -> None:
    host.incus(images="foo", rc=0)
    done = host.run("image.sh", name)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{name}\n", "")


def test_local_alias_missing(host: Host) -> None:
    host.incus()
    done = host.run("image.sh", "foo")
    assert (
        done.returncode == 1 and "no local image foo" in done.stderr and "stt:image" in done.stderr
    )


def test_standin_is_used_without_asking_the_server(host: Host) -> None:
    host.user(1000)
    host.incus(images="incus-stt/images/debian/12")
    done = host.run("image.sh", "images:debian/12")
    assert (done.returncode, done.stdout, done.stderr) == (0, "incus-stt/images/debian/12\n", "")
    assert "info images:" not in host.calls


def test_server_has_the_image(host: Host) -> None:
    host.user(1000)
    host.incus(rc=0)
    done = host.run("image.sh", "images:debian/12")
    assert (done.returncode, done.stdout, done.stderr) == (0, "images:debian/12\n", "")


@pytest.mark.parametrize(
    ("answer", "part"),
    [
        (
            "Error: Failed getting image: The requested image couldn'\\''t be found",
            "has no image debian/99",
        ),
        ('Error: Image "debian/99" not found', "has no image debian/99"),
        ("Error: The remote \"images\" doesn'\\''t exist", "incus remote add images"),
    ],
)
def test_server_answers_but_has_no_such_image(host: Host, answer: str, part: str) -> None:
    host.incus(answer=answer)
    done = host.run("image.sh", "images:debian/99")
    assert done.returncode == 1 and part in done.stderr and "stt:image" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    "answer",
    [
        UNREACHABLE,
        f"{FAILED}Failed parsing stream: Unable to fetch https://x/index.json: 404 File not found",
    ],
)
def test_unreachable_without_root(host: Host, answer: str) -> None:
    host.user(1000)
    host.incus(answer=answer)
    done = host.run("image.sh", "images:debian/12")
    assert done.returncode == 3
    assert (
        "WARNING: the image server 'images' cannot be reached" in done.stderr
        and "sudo sh " in done.stderr
    )


def test_a_standin_for_another_name_gets_this_name_too(host: Host) -> None:
    host.user(1000)
    host.incus(answer=UNREACHABLE, listed="abc123")
    done = host.run("image.sh", "images:ubuntu/24.04")
    assert (done.returncode, done.stdout) == (0, "incus-stt/images/ubuntu/24.04\n")
    assert '"target": "abc123"' in host.calls
    assert '"Debian 12 in place of images:ubuntu/24.04, built on this host"' in host.calls


def test_a_build_that_fails_imports_nothing_and_leaves_nothing(host: Host) -> None:
    host.incus(answer=UNREACHABLE)
    for tool in ("debootstrap", "mksquashfs", "gpgv", "xz", "apt-config"):
        host.fake(tool)
    host.fake("setpriv", "echo E: broken mirror; exit 1")
    done = host.run("image.sh", "images:debian/12")
    assert done.returncode == 1 and "E: broken mirror" in done.stderr and "image.log" in done.stderr
    assert "image import" not in host.calls
    assert not list((host.root / "run").glob("incus-stt-image.*"))


def test_a_build_says_how_far_it_is(host: Host) -> None:
    host.incus(answer=UNREACHABLE)
    host.env["STT_EVERY"] = "2"
    for tool in ("debootstrap", "mksquashfs", "gpgv", "xz", "apt-config"):
        host.fake(tool)
    lines = "I: Retrieving a 1\\nI: Retrieving b 1\\nI: Chosen extractor x\\nI: Extracting a\\n"
    host.fake("setpriv", f"printf '{lines}I: Unpacking a\\n'; sleep 1.5; exit 1")
    done = host.run("image.sh", "images:debian/12")
    assert "  … building the image, 0 s: 40 % of 2 packages installed\n" in done.stderr


def test_a_build_that_is_ended_leaves_nothing(host: Host) -> None:
    host.incus(answer=UNREACHABLE)
    for tool in ("debootstrap", "mksquashfs", "gpgv", "xz", "apt-config"):
        host.fake(tool)
    host.fake("setpriv", f"touch {host.root}/building; sleep 60")
    env = {"PATH": str(host.bin), "STT_ROOT": str(host.root), "TMPDIR": str(host.root / "run")}
    running = subprocess.Popen(
        ["sh", BOOTSTRAP / "image.sh", "images:debian/12"],
        env=env,
        stderr=subprocess.DEVNULL,
    )
    wait((host.root / "building").exists)
    assert list((host.root / "run").glob("incus-stt-image.*"))
    running.terminate()
    assert running.wait(60) == 143
    assert not list((host.root / "run").glob("incus-stt-image.*"))


def test_certificates_that_no_package_brings(tmp_path: Path) -> None:
    def pem(body: str, width: int = 64) -> str:
        lines = "\n".join(body[i : i + width] for i in range(0, len(body), width))
        return f"-----BEGIN CERTIFICATE-----\n{lines}\n-----END CERTIFICATE-----\n"

    stock, own = "A" * 100, "B" * 130
    (tmp_path / "stock.crt").write_text(pem(stock))
    (tmp_path / "bundle").write_text("# name\n" + pem(stock, 76) + pem(own) + pem("C" * 10))
    (tmp_path / "own.crt").write_text(pem(own, 32))
    out = tmp_path / "out"
    out.mkdir()
    subprocess.run(
        [
            "awk",
            "-v",
            f"dir={out}",
            "-f",
            BOOTSTRAP / "lib/certs.awk",
            "stock=1",
            tmp_path / "stock.crt",
            "stock=0",
            tmp_path / "bundle",
            tmp_path / "own.crt",
        ],
        check=True,
    )
    assert sorted(path.read_text() for path in out.iterdir()) == [pem(own), pem("C" * 10)]


# tests.sh


def test_what_the_tests_use_is_silent_where_it_is_there(host: Host) -> None:
    for name in ("chromium", "certutil", "bwrap"):
        host.fake(name)
    host.fake("initdb", where=host.root / "usr/lib/postgresql/17/bin/initdb")
    host.fake("nginx", where=host.root / "usr/sbin/nginx")
    host.fake("mkfs.btrfs", where=host.root / "usr/sbin/mkfs.btrfs")
    done = host.run("tests.sh")
    assert (done.returncode, done.stderr) == (0, "")
    assert "apt-get" not in host.calls


def test_what_the_tests_lack_is_installed(host: Host) -> None:
    host.fake("chromium")
    host.fake("initdb", where=host.root / "usr/lib/postgresql/15/bin/initdb")
    done = host.run("tests.sh")
    assert done.returncode == 0, done.stderr
    assert (
        "install --no-install-recommends libnss3-tools bubblewrap nginx btrfs-progs" in host.calls
    )
    assert (
        "the tests use libnss3-tools bubblewrap nginx btrfs-progs: env DEBIAN_FRONTEND"
        in done.stderr
    )


def test_without_root_or_a_package_the_tests_that_use_it_are_skipped(host: Host) -> None:
    host.user(1000)
    done = host.run("tests.sh")
    assert done.returncode == 0
    assert (
        "sudo apt-get install chromium libnss3-tools bubblewrap postgresql nginx btrfs-progs"
        in done.stderr
    )
    host.write("etc/os-release", NOBLE)
    done = host.run("tests.sh")
    assert done.returncode == 0
    assert "tests in a browser are skipped" in done.stderr
    assert "sudo apt-get install bubblewrap postgresql nginx btrfs-progs" in done.stderr
    assert "apt-get" not in host.calls


def test_postgresql_is_installed_without_a_server(host: Host) -> None:
    setting = "etc/postgresql-common/createcluster.d/incus-stt-tests.conf"
    host.fake("apt-get", f"cat {host.root / setting} >>{host.calls_file}")
    done = host.run("tests.sh")
    assert done.returncode == 0, done.stderr
    assert "bubblewrap postgresql nginx" in host.calls
    assert "create_main_cluster = false" in host.calls
    assert not (host.root / setting).exists()


def test_nginx_is_installed_without_a_server(host: Host) -> None:
    policy, unit = host.root / "usr/sbin/policy-rc.d", "etc/systemd/system/nginx.service"
    host.fake("apt-get", f"{policy} || echo denied $? >>{host.calls_file}")
    done = host.run("tests.sh")
    assert done.returncode == 0, done.stderr
    assert "postgresql nginx" in host.calls and "denied 101" in host.calls
    assert not policy.exists(), "other packages start what they bring"
    assert (host.root / unit).readlink() == Path("/dev/null")


def test_a_policy_of_the_host_s_own_stays(host: Host) -> None:
    policy = host.root / "usr/sbin/policy-rc.d"
    host.write("usr/sbin/policy-rc.d", "mine")
    assert host.run("tests.sh").returncode == 0
    assert policy.read_text() == "mine"
