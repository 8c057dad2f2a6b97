"""The commands of docs/operations.md, as a reader types them, on a stack of the tests."""

from __future__ import annotations

import subprocess

from tests.e2e.project import RECORDINGS, ROOT, Project, incus, run

#: Where a machine has the recording that the page calls ``audio.wav``.
_AUDIO = "/root/audio.wav"


def commands() -> list[str]:
    """The lines of "Is it working?", each whole."""
    page = (ROOT / "docs" / "operations.md").read_text()
    block = page.partition("## Is it working?")[2].partition("```sh\n")[2].partition("```")[0]
    lines = block.replace("\\\n", " ").splitlines()
    return [" ".join(line.split()) for line in lines if line and not line.startswith("#")]


def command(*words: str) -> str:
    """The one that has all of these words."""
    [found] = [line for line in commands() if all(word in line for word in words)]
    return found


def follow(project: Project, line: str) -> subprocess.CompletedProcess[str]:
    """Type it, with this stack's names; what never ends is ended after 3 s.

    A transcription is asked for in a machine: the host does not know the machines' names.
    """
    outputs = project.outputs()
    names = {
        "--project ai-tools": f"--project {project.domain}",
        "10.120.0.1": f"{project.subnet}.1",
        "large-v3-turbo": outputs["stt_model"],
        "audio.wav": _AUDIO,
    }
    for name, own in names.items():
        line = line.replace(name, own)
    if line.endswith(" -f"):
        line = f"timeout 3 {line}"
    if "http://gpu-server" not in line:
        return run("sh", "-c", line)
    recording = str(RECORDINGS / "hello_world.wav")
    incus("file", "push", recording, f"gpu-server{_AUDIO}", project=project.domain)
    key = f"STT_API_KEY={outputs.get('stt_api_key', '')}"
    inside = ("incus", "--project", project.domain, "exec", "gpu-server", "--env", key, "--")
    return run(*inside, "sh", "-c", line)
