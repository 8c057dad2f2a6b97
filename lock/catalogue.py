"""What the code fetches: every engine and role says it, and here is what belongs to neither."""

from __future__ import annotations

import re

from declaration.artifacts import Artifact, Lock
from declaration.settings import Settings
from declaration.source_files import ROOT
from engines import ENGINES
from roles import ROLES


def _pulumi(name: str) -> str:
    """A version that bootstrap/lib/pulumi.sh pins."""
    text = (ROOT / "bootstrap" / "lib" / "pulumi.sh").read_text(encoding="utf-8")
    (found,) = re.findall(rf"^{name}_VERSION=(\S+)$", text, re.MULTILINE)
    return str(found)


def _host() -> list[Artifact]:
    """What this computer and the Incus host fetch, beside packages of their distribution."""
    image = str(Settings.model_fields["image"].default)
    return [
        Artifact(
            "pkg:github/pulumi/pulumi",
            f"v{_pulumi('PULUMI')}",
            "Apache-2.0",
            "https://github.com/pulumi/pulumi/releases",
            "the release's own list of SHA-256; where it is built: bootstrap/pulumi/go.sum",
        ),
        Artifact(
            "pkg:github/pulumi/pulumi-command",
            f"v{_pulumi('COMMAND')}",
            "Apache-2.0",
            "Pulumi's own plugin registry",
            "by Pulumi; where it cannot be had, plugins/ of this repository stands in",
        ),
        Artifact(
            "pkg:generic/base-image",
            "",
            "each package its own",
            f"{image} (stt:image)",
            "SHA-256, by Incus, which names an image by it; it moves on with its server. A machine "
            "that was made keeps the fingerprint: another one is drift",
        ),
        Artifact(
            "pkg:generic/distribution-packages",
            "",
            "each its own",
            "apt, of the host and of the machines",
            "by apt, from the distribution's signed lists",
        ),
    ]


def wanted() -> list[Artifact]:
    """Everything that is fetched and that no pip lock names, sorted by name."""
    said = [*(role.artifacts for role in ROLES.values())]
    said += [*(engine.artifacts for engine in ENGINES.values()), _host()]
    found = {each.name: each for artifacts in said for each in artifacts}
    return [found[name] for name in sorted(found)]


def merged(kept: Lock) -> Lock:
    """What the code fetches, with the sums that ``kept`` has of the same versions.

    A model's version is that of the lock file: the code names none.
    """
    artifacts = {}
    for each in wanted():
        old = kept.artifacts.get(each.name)
        if old and each.version in ("", old.version):
            each = _with_sums(each, old)
        artifacts[each.name] = each
    return Lock(artifacts, kept.packages, kept.licences)


def _with_sums(new: Artifact, old: Artifact) -> Artifact:
    return Artifact(
        new.name,
        old.version,
        new.licence,
        new.source,
        new.verified,
        old.sums,
        old.files,
        new.patterns,
        new.listing,
        new.uv_project,
    )
