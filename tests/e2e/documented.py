"""The commands of tests/documented.py, as a reader types them, on a stack of the tests."""

from __future__ import annotations

import subprocess

from tests.e2e.project import RECORDINGS, Project, incus, run

#: Where a machine has the recording that the page calls ``audio.wav``.
_AUDIO = "/root/audio.wav"


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
