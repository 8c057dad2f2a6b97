"""Under a steady load of transcriptions: what a good change loses, and a bad one."""

from __future__ import annotations

import pytest

from tests.e2e.load import outage_at_rest, tell, under_load
from tests.e2e.project import Project, broken_model, request

pytestmark = pytest.mark.seldom

#: More seconds than a service that is put back takes; far fewer than one has time to start.
PUT_BACK = 60
#: Takes a port as soon as the agent has begun to change something.
SQUATTER = """import glob, socket, time
while not glob.glob("/var/lib/incus-stt/transactions/*/list.json"):
    time.sleep(0.01)
squatter = socket.create_server(("", 8124))
time.sleep(600)
"""


def test_what_each_change_loses(
    project: Project, up: str, capsys: pytest.CaptureFixture[str]
) -> None:
    usual = outage_at_rest(project, capsys, "no change")

    project.set(quantization="float32")
    with under_load(project) as load:
        project.up()
    tell(capsys, "another quantization", load)
    good = load.outage
    assert load.failed == 0, "systemd holds the port: clients wait for the restart"
    assert good < project.outputs()["stt_times"]["restart"] + usual + 10

    # A model that does not load is found before the old one stops.
    project.set(model=broken_model(project), quantization="int8")
    with under_load(project) as load:
        project.fails()
    tell(capsys, "a model that does not load", load)
    assert load.failed == 0

    # What is wrong only once it starts, here a variable that nobody reads and that would have no
    # effect, in silence. The old one comes back.
    project.set(model="./models/tiny-digits")
    file = project.root / "engines" / "own_server.py"
    text = file.read_text()
    language = '"STT_LANGUAGE": settings.language,'
    assert language in text
    try:
        file.write_text(text.replace(language, f'{language}\n        "STT_LANGAUGE": "",'))
        with under_load(project) as load:
            said = project.fails()
    finally:
        file.write_text(text)
    assert "STT_LANGAUGE" in said and "the previous one was restored" in said
    tell(capsys, "a service that fails at its start", load)
    assert load.failed == 0
    assert load.outage < good + PUT_BACK

    # Another port, which is taken at the last moment: the old one has to listen again.
    project.set(port=8124)
    project.inside("systemd-run", "-q", "-u", "squatter", "python3", "-c", SQUATTER)
    with under_load(project) as load:
        said = project.fails()
    project.inside("systemctl", "stop", "squatter")
    assert "the previous one was restored" in said
    assert "ddress already in use" in said  # the journal's words
    tell(capsys, "a port that is taken at the last moment", load)
    assert load.answers[-1][1]
    assert load.outage < good + PUT_BACK
    project.set(port=None)
    assert request(project.outputs()["stt_health_url"]).status == 200
    project.up()
    assert project.unchanged()
