"""Cards, their owners and what fits, on the real Incus of a host without a card.

nvidia-smi is a script that says what a test wants; an instance with a GPU can be created on such a
host, and only not started.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from operations.memory import _CARDS as CARDS
from operations.memory import cards
from tests.e2e.project import Project, incus, remove_leftovers, run

DOMAIN, SUBNET, OTHER = "stt-e2e-v", "10.213.54", "stt-e2e-v-lab"
CARD = "00000000:01:00.0, NVIDIA GeForce RTX 3060, {mib}, 8.6, 560.35.03"


class Host:
    """The stack of a host whose nvidia-smi shows a card; it is only previewed."""

    def __init__(self, root: Path) -> None:
        self.project = Project(root, DOMAIN, SUBNET)
        self.bin = root / "bin"
        self.bin.mkdir()
        self.policy = "exclusive"
        self.project.machines = {
            "gpu-server": {
                "gpu": True,
                "profiles": ["default", "nvidia"],
                "roles": ["base_system", "ollama_server", "stt_server"],
            }
        }
        self.set(engine="speaches", model=None, quantization=None)

    def card(self, mib: int) -> None:
        """What nvidia-smi shows from now on."""
        script = self.bin / "nvidia-smi"
        script.write_text(f"#!/bin/sh\necho '{CARD.format(mib=mib)}'\n")
        script.chmod(0o755)

    def set(self, **settings: object) -> None:
        """Settings, and the topology with its profile."""
        self.project.set(**settings)
        file = self.project.root / "infra.e2e.yml"
        infra = yaml.safe_load(file.read_text())
        gpu = {"devices": {"gpu": {"type": "gpu", "gputype": "physical"}}}
        infra["domains"][DOMAIN]["profiles"] = {"nvidia": gpu}
        infra["global"] = {"gpu_policy": self.policy}
        file.write_text(yaml.safe_dump(infra))

    def preview(self) -> tuple[int, str]:
        """A preview's exit status and all that it says."""
        done = self.project.pulumi("preview", PATH=f"{self.bin}:{os.environ['PATH']}")
        return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Host:
    return Host(tmp_path_factory.mktemp("gpu"))


@pytest.fixture
def trainer() -> Iterator[None]:
    """Somebody else's instance with a GPU, in a project of theirs."""
    remove_leftovers(OTHER)
    incus("project", "create", OTHER)
    try:
        disk = "devices: {root: {type: disk, pool: default, path: /}}"
        incus("profile", "edit", "default", project=OTHER, stdin=disk)
        incus("create", "--empty", "trainer", project=OTHER)
        incus("config", "device", "add", "trainer", "card", "gpu", project=OTHER)
        yield
    finally:
        remove_leftovers(OTHER)


def test_without_a_card_the_preview_says_which_stack_works(host: Host) -> None:
    status, said = host.preview()
    assert status != 0 and "Incus sees no NVIDIA card" in said and "make up STACK=cpu" in said


@pytest.mark.parametrize(
    ("mib", "chosen"), [(24564, "float16"), (12288, "float16"), (6144, "int8_float16")]
)
def test_the_preview_chooses_and_says_what_is_left(host: Host, mib: int, chosen: str) -> None:
    host.card(mib)
    status, said = host.preview()
    assert status == 0, said
    assert f"stt:quantization auto: {chosen}" in said
    assert f"gpu-server: NVIDIA GeForce RTX 3060 ({mib / 1024:.1f} GiB" in said
    assert "to spare" in said
    assert re.search(f'stt_quantization *: "{chosen}"', said), said


def test_what_does_not_fit_is_refused_with_what_would(host: Host) -> None:
    host.card(4096)
    host.set(model="large-v3", quantization="float16")
    status, said = host.preview()
    assert status != 0
    assert "stt:model: does not fit on NVIDIA GeForce RTX 3060 (4.0 GiB" in said
    assert "the nearest first: large-v3-turbo in int8_float16" in said
    host.set(force=True)
    status, said = host.preview()
    assert status == 0 and "stt:force is true, so this is tried anyway" in said
    host.set(model=None, quantization=None, force=None)


def test_another_owner_in_any_project_is_refused_by_name(host: Host, trainer: None) -> None:
    host.card(24564)
    status, said = host.preview()
    assert status != 0
    assert f"trainer (project {OTHER})" in said and "gpu_policy: shared" in said
    host.policy = "shared"
    host.set()
    assert host.preview()[0] == 0
    host.policy = "exclusive"
    host.set()


def test_it_touched_nothing(host: Host) -> None:
    assert host.preview()[0] == 0
    assert not [line for line in incus("project", "list", "--format", "csv").splitlines()
                if line.startswith(DOMAIN)]  # fmt: skip


def test_vram_shows_who_holds_the_card(tmp_path: Path) -> None:
    """The lines of the host, from an nvidia-smi that shows this test's own process."""
    smi = tmp_path / "nvidia-smi"
    smi.write_text(
        "#!/bin/sh\n"
        'case $1 in *query-gpu*) echo "GPU-1, RTX 3060, 6000, 12288" ;;\n'
        f'*) echo "GPU-1, {os.getpid()}, 5500" ;; esac\n'
    )
    smi.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    said = run("sh", "-c", CARDS, env={**os.environ, "PATH": path}).stdout
    lines = cards(said)
    assert lines[0] == "RTX 3060: 6000 of 12288 MiB in use"
    assert lines[1].startswith("  5500 MiB  ")
    assert cards("card, GPU-1, RTX, 6, 12\nprocess, GPU-1, 77, 5, "
                 "0::/lxc.payload.ai-tools_gpu-server/system.slice/speaches.service"
                 )[1] == "  5 MiB  ai-tools_gpu-server: speaches"  # fmt: skip
