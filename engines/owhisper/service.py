"""How OWhisper's last server is built from its source, behind our own (docs/decisions/0008).

Its makers removed it from fastrepl/hyprnote in December 2025 (e89fd2aa6); this is the commit
before.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from agent.actions import Action, Build, Download, Git, Run, Unpack
from agent.kinds.packages import Packages
from agent.kinds.program import Program
from declaration.artifacts import Artifact, hub_name, known_sums, locked_version
from declaration.source_files import digest
from declaration.step import Step
from declaration.venv import BUILDER
from engines.hub import HUB, hub_artifacts
from engines.own_server import OwnServer, model_directory, own_server
from engines.service import EngineContext, EngineService

REPOSITORY = "https://github.com/fastrepl/hyprnote"
COMMIT = "c5d1acfb422df1826ba1279be804dde0dfafe141"
RUST, RUSTUP = "1.92.0", "1.28.2"
#: whisper.cpp's own models on the hub.
MODELS = "ggerganov/whisper.cpp"
#: Models whose quantized files (q8_0) whisper.cpp's makers publish.
PUBLISHED = ("tiny", "tiny.en", "base", "base.en", "small", "small.en", "large-v3-turbo")


def file(model: str) -> str:
    """The name of a model's file."""
    return f"ggml-{model}-q8_0.bin"


RUSTUP_FILE = (
    f"https://static.rust-lang.org/rustup/archive/{RUSTUP}/x86_64-unknown-linux-gnu/rustup-init"
)
ARTIFACTS = [
    Artifact(
        "pkg:github/fastrepl/hyprnote",
        COMMIT,
        "GPL-3.0",
        REPOSITORY,
        "the commit, which names every file; its Cargo.lock has the SHA-256 of its crates",
    ),
    Artifact(
        "pkg:generic/rustup-init",
        RUSTUP,
        "MIT OR Apache-2.0",
        RUSTUP_FILE,
        "SHA-256",
        patterns=["rustup-init"],
        listing=f"{RUSTUP_FILE}.sha256",
    ),
    Artifact(
        "pkg:generic/rust",
        RUST,
        "MIT OR Apache-2.0",
        "rustup",
        "SHA-256, by rustup, from the release's own manifest",
    ),
    *hub_artifacts([MODELS], "MIT", [file(name) for name in PUBLISHED]),
]
_RUNTIME = ["libasound2-dev", "libpulse0", "libstdc++6"]
_BUILD = (
    "build-essential ca-certificates clang cmake curl git libclang-dev libpulse-dev libssl-dev "
    "pkg-config"
).split()
_INSTEAD = "set stt:sources.owhisper to an archive with bin/owhisper-server"


def service(context: EngineContext) -> EngineService:
    """The steps and the service."""
    model = context.model
    source, uploads = context.bring("owhisper", context.settings.sources.owhisper or "")
    program = f"/opt/incus-stt/owhisper-server-{_tag(context.settings.sources.owhisper or '')}"
    packages = Step(
        context.name("packages"),
        Packages(_RUNTIME + ([] if source else _BUILD)),
        context.uv,
    )
    install = Step(
        context.name("owhisper"),
        Program(
            program,
            "OWhisper" if source else "OWhisper from its source; this takes half an hour and 10 GB",
            _actions(program, source),
            requires="bin/owhisper-server",
            failure=f"stt:sources.owhisper: {source} does not hold bin/owhisper-server.",
        ),
        [packages.name, *(step.name for step in uploads)],
    )
    endpoint = (context.settings.sources.models or HUB).rstrip("/")
    # A mirror of one's own may have the newest revision only.
    mirrored = bool(context.settings.sources.models)
    revision = "main" if mirrored else locked_version(hub_name(MODELS)) or "main"
    url = f"{endpoint}/{MODELS}/resolve/{revision}/{model.repository}"
    directory = model_directory(context)
    return own_server(
        context,
        OwnServer(
            name="owhisper",
            engine="owhisper",
            description="OWhisper",
            locks={"cpu": "requirements-owhisper.txt"},
            directory=directory,
            fetch=[
                Download(
                    url,
                    f"{directory}/model.ggml",
                    failure=f"stt:model {model.name} could not be downloaded from {url}. Check the "
                    "machine's network, or set stt:sources.models to a mirror; then run up again: "
                    "the download continues where it stopped.",
                    sums=known_sums(hub_name(MODELS)),
                )
            ],
            languages=sorted(model.known.languages) if model.known else (),
            program=f"{program}/bin/owhisper-server",
            steps=[*uploads, packages, install],
        ),
    )


def _tag(source: str) -> str:
    """What tells one program from another in its directory's name."""
    if source and Path(source).is_file():
        return digest(Path(source))
    return hashlib.sha256(source.encode()).hexdigest()[:12] if source else COMMIT[:12]


def _actions(program: str, source: str) -> list[Action]:
    if source.startswith("/opt/"):
        return [Unpack(source, program)]
    if source:
        failure = (
            f"stt:sources.owhisper: {source} could not be downloaded. Check the address, then run "
            "up again."
        )
        archive = f"{program}.archive"
        return [Download(source, archive, failure=failure), Unpack(archive, program, cleanup=True)]
    return _build(program)


def _build(program: str) -> list[Action]:
    work = "/var/cache/incus-stt/owhisper"
    environment = {
        "RUSTUP_HOME": f"{work}/rustup",
        "CARGO_HOME": f"{work}/cargo",
        "CARGO_NET_GIT_FETCH_WITH_CLI": "true",
    }
    sums = known_sums("pkg:generic/rustup-init", RUSTUP)
    toolchain = ["--profile", "minimal", "--no-modify-path", "--default-toolchain", RUST]
    no_rust = f"Rust {RUST} could not be installed. Check the machine's network, or {_INSTEAD}."
    built = f"{work}/source/target/release/owhisper-server"
    return [
        Run(["rm", "-rf", work]),
        Download(RUSTUP_FILE, f"{work}/rustup-init", failure=no_rust, sums=sums),
        Run(["chmod", "+x", f"{work}/rustup-init"]),
        Git(
            REPOSITORY,
            COMMIT,
            COMMIT,
            f"{work}/source",
            failure=f"OWhisper's source could not be fetched from {REPOSITORY}. Where this address "
            f"cannot be reached, {_INSTEAD}.",
        ),
        Run(["rm", "-f", f"{work}/source/rust-toolchain.toml"]),
        Build(
            BUILDER,
            work,
            [
                Run(
                    [f"{work}/rustup-init", "-y", "-q", *toolchain],
                    failure=no_rust,
                    environment=environment,
                ),
                Run(
                    [
                        *(f"{work}/cargo/bin/cargo", "build", "--quiet", "--release", "--locked"),
                        *("-p", "owhisper-server"),
                    ],
                    directory=f"{work}/source",
                    environment=environment,
                    deadline=7200,
                    failure="OWhisper could not be built (above: what cargo says). Its makers no "
                    "longer maintain it; faster-whisper and speaches are maintained. An archive "
                    "with bin/owhisper-server goes into stt:sources.owhisper.",
                ),
            ],
        ),
        Run(["mkdir", "-p", program]),
        # Not as root: what has been built may be a link to what nobody else should read.
        Build(
            BUILDER,
            program,
            [Run(["install", "-D", "-m", "0755", built, f"{program}/bin/owhisper-server"])],
        ),
        Run(["rm", "-rf", work]),
    ]
