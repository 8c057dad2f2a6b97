"""The size of a root disk, in a storage pool that holds to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.other_incus import IMAGE, OtherIncus
from tests.e2e.project import Project, incus, left_of, light

DOMAIN, SUBNET = "stt-e2e-dsk", "10.213.58"
#: The pool, and how large its file is: two root disks of the tests fit.
POOL, POOL_SIZE = "sized", "6GiB"
#: The size of the machine's disk, and a larger one; the image takes a part of it.
SIZE, LARGER = "1GiB", "2GiB"
#: Tells when the machine's first process began, in the kernel's own time.
STARTED = ("awk", "{print $22}", "/proc/1/stat")


@pytest.fixture
def project(other: OtherIncus, tmp_path: Path) -> Iterator[Project]:
    """A machine with a disk of that size."""
    incus("storage", "create", POOL, "btrfs", f"size={POOL_SIZE}", **other.environment)
    found = Project(tmp_path / "project", DOMAIN, SUBNET, environment=other.environment)
    light(found)
    found.machines["gpu-server"]["disk"] = SIZE
    found.set(image=IMAGE, pool=POOL)
    try:
        found.up()
        yield found
    finally:
        found.destroy()
        incus("storage", "delete", POOL, **other.environment)
    assert left_of(DOMAIN, **other.environment) == []


def written(project: Project, mib: int) -> bool:
    """Whether the root disk has room for so much more."""
    fill = f"dd if=/dev/zero of=/var/fill bs=1M count={mib} conv=fsync status=none && echo all"
    return project.inside("sh", "-c", f"{{ {fill}; }} 2>&1; rm -f /var/fill").endswith("all")


def test_a_root_disk_has_the_size_that_is_declared(project: Project) -> None:
    """It becomes larger while the machine runs; another size made by hand is drift."""
    assert "is a directory (dir)" not in project.pulumi("preview").stdout
    started = project.inside(*STARTED)
    assert written(project, 200) and not written(project, 1024)
    project.machines["gpu-server"]["disk"] = LARGER
    project.write()
    project.up()
    assert written(project, 1024) and not written(project, 2048)
    by_hand = ("config", "device", "set", "gpu-server", "root", "size=3GiB")
    incus(*by_hand, project=DOMAIN, **project.environment)
    assert project.drift() == [f"gpu-server/instance: devices.root.size: 3GiB -> {LARGER}"]
    project.up()
    assert not written(project, 2048)
    del project.machines["gpu-server"]["disk"]
    project.write()
    project.up()
    assert written(project, 2048)
    assert project.inside(*STARTED) == started
    assert project.unchanged()
