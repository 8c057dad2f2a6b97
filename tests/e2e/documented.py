"""The commands of tests/documented.py, as a reader types them, on a stack of the tests."""

from __future__ import annotations

import shlex
import subprocess

from tests.e2e.project import RECORDINGS, Project, ended, incus, run

#: Where a machine has the recording that the page calls ``audio.wav``.
_DIRECTORY = "/root"


def follow(
    project: Project, line: str, machine: str = "gpu-server", until: str = ""
) -> subprocess.CompletedProcess[str]:
    """Type it, with this stack's names; what never ends is ended once it has said ``until``.

    A transcription is asked for in ``machine``: the host does not know the machines' names.
    """
    outputs = project.outputs()
    names = {
        "--project ai-tools": f"--project {project.domain}",
        "10.120.0.1": f"{project.subnet}.1",
        "large-v3-turbo": outputs["stt_model"],
    }
    for name, own in names.items():
        line = line.replace(name, own)
    if line.endswith(" -f"):
        return _followed(line, until)
    if "http://gpu-server" not in line:
        return run("sh", "-c", line)
    recording = str(RECORDINGS / "hello_world.wav")
    place = f"{machine}{_DIRECTORY}/audio.wav"
    incus("file", "push", recording, place, project=project.domain)
    key = f"STT_API_KEY={outputs.get('stt_api_key', '')}"
    inside = ("exec", machine, "--cwd", _DIRECTORY, "--env", key, "--")
    return ended(*inside, "sh", "-c", line, project=project.domain)


def _followed(line: str, until: str) -> subprocess.CompletedProcess[str]:
    """What a command says up to these words, for a minute at most."""
    words, said = ["timeout", "60", *shlex.split(line)], ""
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        for each in process.stdout:
            said += each
            if until in each:
                process.terminate()
                break
    return subprocess.CompletedProcess(words, process.returncode, said)
