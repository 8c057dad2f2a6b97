"""Python programs in machines: a virtual environment that uv makes from a lock file."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from agent.actions import Action, Build, Run
from agent.wheels import SharedWheels
from declaration.artifacts import Artifact, known_sums

#: Speaches' lock file wants uv ~= 0.8.14; its own image of v0.9.0-rc.3 brings this one.
UV_VERSION = "0.8.22"
UV_DIRECTORY = f"/opt/incus-stt/uv-{UV_VERSION}"
UV = f"{UV_DIRECTORY}/bin/uv"
UV_ARTIFACT = Artifact(
    "pkg:pypi/uv",
    UV_VERSION,
    "Apache-2.0 OR MIT",
    "the Python package index",
    "SHA-256, by pip (--require-hashes)",
)


def uv_lock(sums: Collection[str] = ()) -> str:
    """What pip installs uv from: the wheels for amd64 and arm64, as ``artifacts.lock`` has them."""
    sums = sorted(sums or known_sums(UV_ARTIFACT.name, UV_VERSION).values())
    return f"uv=={UV_VERSION}" + "".join(f" \\\n    --hash=sha256:{each}" for each in sums) + "\n"


#: Downloads are kept for the next program, in the machine.
UV_ENVIRONMENT = {
    "UV_CACHE_DIR": "/var/cache/incus-stt/uv",
    "UV_LINK_MODE": "hardlink",
    "UV_NO_PROGRESS": "1",
    "UV_PYTHON_INSTALL_DIR": "/opt/incus-stt/python",
}
#: Who runs what packages bring: their own builds, and what Python runs as soon as they are there.
BUILDER, BUILDER_UID, BUILDER_HOME = "stt-build", 906, "/var/cache/incus-stt/build"
#: With a cache of its own: root reads nothing that it may have written.
BUILD_ENVIRONMENT = {**UV_ENVIRONMENT, "UV_CACHE_DIR": f"{BUILDER_HOME}/uv"}
#: Where the storage volume is mounted with which the machines of a domain share wheels.
WHEELS = "/var/cache/incus-stt/wheels"
_KEPT = "Check the machine's network and disk, then run up again: what was downloaded is kept."


def cuda_links(venv: str) -> Run:
    """One directory with every CUDA library, whichever Python version named the path.

    Shell text, as whoever has installed them: what root links to somebody else could choose.
    """
    links = 'mkdir "$1" && ln -s -f -t "$1" -- $2'
    libraries = f"{venv}/lib/python3.*/site-packages/nvidia/*/lib/*.so*"
    return Run(["sh", "-c", links, "sh", f"{venv}/lib/cuda", libraries])


def venv_actions(
    name: str,
    directory: str,
    lock: str,
    python: str,
    *,
    no_python: str = "",
    share: bool = False,
    cuda: bool = False,
    downloads: Mapping[str, int] | None = None,
) -> list[Action]:
    """What makes a virtual environment with what ``lock`` names, by hash.

    ``python`` is the range of versions; ``no_python``: what to say where the machine has none of
    these. Nothing is installed that the lock file does not name, and nothing built: what builds a
    package has no hash. Once there are packages, nothing runs as root: Python runs what they bring
    as soon as it starts (``.pth``). With ``share`` the machines of a domain fetch wheels for each
    other. ``cuda``: it has CUDA's libraries. ``downloads``: bytes of all the packages, by Python
    and processor.
    """
    words = ["--quiet", "--compile-bytecode", "--require-hashes", "--no-deps", "--no-build"]
    install = [UV, "pip", "install", *words]
    create = [UV, "venv", "--quiet", "--python", python, directory]
    shared = SharedWheels(WHEELS, lock, directory, create, UV, UV_ENVIRONMENT, downloads or {})
    return [
        Run(
            create,
            failure=no_python or f"{name} needs Python {python}.",
            environment=UV_ENVIRONMENT,
        ),
        *([shared] if share else []),
        Build(
            BUILDER,
            directory,
            [
                Run(
                    [*install, "--python", f"{directory}/bin/python", "-r", lock],
                    failure=f"uv could not install {name}. {_KEPT}",
                    environment=BUILD_ENVIRONMENT,
                ),
                *([cuda_links(directory)] if cuda else []),
            ],
        ),
    ]
