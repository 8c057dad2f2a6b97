"""The stand-in image, built and booted for real.

It has its own project, bridge and temporary directory; nothing else is touched.
"""

import hashlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from host.client import past_races
from tests.whole import whole

BOOTSTRAP = Path(__file__).resolve().parents[2] / "bootstrap"
Done = subprocess.CompletedProcess[str]
PROJECT, BRIDGE, MACHINE = "stt-bootstrap-e2e", "stt-boot-e2e", "standin"


def sh(*command: str | Path, check: bool = True, timeout: int = 300) -> Done:
    done = subprocess.run(
        command, text=True, capture_output=True, stdin=subprocess.DEVNULL, timeout=timeout
    )
    assert done.returncode == 0 or not check, f"{command}\n{done.stdout}{done.stderr}"
    return done


def incus(*args: str, check: bool = True, project: str = PROJECT, timeout: int = 300) -> Done:
    def client(*words: str) -> Done:
        # Tests beside this one make bridges and more.
        command = ("incus", "--project", project, *words)
        return past_races(lambda: sh(*command, check=False, timeout=timeout))

    done = whole(client, *args)
    assert done.returncode == 0 or not check, f"{args}\n{done.stdout}{done.stderr}"
    return done


def inside(script: str, check: bool = True, timeout: int = 300) -> Done:
    return incus("exec", MACHINE, "--", "bash", "-euc", script, check=check, timeout=timeout)


def usable() -> bool:
    if os.geteuid() != 0 or not shutil.which("incus"):
        return False
    return sh("incus", "query", "/1.0", check=False).returncode == 0


pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not usable(), reason="needs root and a running Incus"),
]


def remove() -> None:
    incus("delete", "--force", MACHINE, check=False)
    for image in incus(
        "image", "list", "--format", "csv", "--columns", "F", check=False
    ).stdout.split():
        incus("image", "delete", image, check=False)
    incus("network", "delete", BRIDGE, check=False, project="default")
    incus("project", "delete", PROJECT, check=False, project="default")


def built(scratch: Path) -> Path:
    """The image's files: built once a week, and again after every change of the scripts."""
    scripts = b"".join(path.read_bytes() for path in sorted((BOOTSTRAP / "lib").glob("*.sh")))
    week = "{}w{}".format(*datetime.now(UTC).isocalendar())
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"), "incus-stt", "tests")
    place = cache / f"rootfs-{hashlib.sha256(scripts).hexdigest()[:12]}-{week}"
    if place.exists():
        return place
    for old in cache.glob("rootfs-*"):
        shutil.rmtree(old)
    build = ("sh", BOOTSTRAP / "lib/rootfs.sh", scratch)
    begin = time.monotonic()
    sh("unshare", "--mount", "--pid", "--fork", "--kill-child", *build, timeout=1800)
    size = (scratch / "rootfs.squashfs").stat().st_size >> 20
    print(f"built in {time.monotonic() - begin:.0f} s, {size} MiB")
    shutil.rmtree(scratch / "rootfs")
    part = place.with_suffix(".part")
    shutil.copytree(scratch, part)
    part.rename(place)
    return place


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    parts = built(tmp_path_factory.mktemp("image"))
    remove()
    try:
        own = ("-c", "features.images=true", "-c", "features.profiles=true")
        incus("project", "create", PROJECT, *own, project="default")
        bridge = ("ipv4.address=10.199.77.1/24", "ipv4.nat=true", "ipv6.address=none")
        incus("network", "create", BRIDGE, *bridge, project="default")
        incus(
            "image",
            "import",
            str(parts / "metadata.tar.xz"),
            str(parts / "rootfs.squashfs"),
            "--alias",
            "incus-stt/test/image",
        )
        pools = incus("storage", "list", "--format", "csv", "--columns", "n").stdout.split()
        pool = next((name for name in pools if name == "incus-stt-tests"), pools[0])
        incus("launch", "incus-stt/test/image", MACHINE, "--storage", pool, "--network", BRIDGE)
        yield MACHINE
    finally:
        remove()


def test_systemd_comes_up(machine: str) -> None:
    for _ in range(600):
        state = inside("systemctl is-system-running", check=False).stdout.strip()
        if state in ("running", "degraded"):
            break
        time.sleep(0.5)
    failed = inside("systemctl --failed --no-legend --plain").stdout
    assert state == "running", f"{state}\n{failed}"
    finished = inside("systemd-analyze time").stdout
    print(finished)
    assert "min" not in finished.splitlines()[0]


def test_address_from_dhcp(machine: str) -> None:
    for _ in range(600):
        address = inside("ip -4 -o addr show dev eth0").stdout
        if "10.199.77." in address:
            return
        time.sleep(0.5)
    pytest.fail(f"no address: {address}")


def test_names_resolve(machine: str) -> None:
    assert "stub-resolv.conf" in inside("readlink /etc/resolv.conf").stdout
    inside(f"getent ahosts {machine}")
    # A name that the host itself resolves: that of its package mirror.
    sources = inside("cat /etc/apt/sources.list.d/*.sources").stdout
    name = re.findall(r"^URIs: *\w+://([^/:\s]+)", sources, re.M)[0]
    if sh("getent", "hosts", name, check=False).returncode == 0:
        inside(f"getent hosts {name}")


@pytest.mark.seldom
def test_python_venv(machine: str) -> None:
    inside("python3 -m venv /tmp/venv && /tmp/venv/bin/pip --version")


def test_tools_and_identity(machine: str) -> None:
    inside("command -v curl tar xz zstd systemctl")
    assert inside("hostname").stdout.strip() == machine
    assert len(inside("cat /etc/machine-id").stdout.strip()) == 32, "made at the first boot"


@pytest.mark.seldom
def test_packages_can_be_installed(machine: str) -> None:
    inside("apt-get -q update && apt-get -q -s install ffmpeg", timeout=600)


def test_certificates_of_the_host_are_trusted(machine: str) -> None:
    own = sh("find", "/usr/local/share/ca-certificates", "-name", "*.crt").stdout.split()
    have = "".join(inside("cat /etc/ssl/certs/ca-certificates.crt").stdout.split())
    for file in own:
        assert "".join(Path(file).read_text().split("-----")[2].split()) in have, file
