"""Several STT servers in machines of their own behind one address: no request is lost.

``STT_GATEWAY_FAULTS`` and ``STT_GATEWAY_REQUESTS`` say how many faults and requests there are; each
run has other ones (``tests/seeds.py``).
"""

from __future__ import annotations

import copy
import os
import random
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import pytest

from tests.e2e.calls_out import heard
from tests.e2e.load import Load, asked_meanwhile, under_load
from tests.e2e.project import (
    RECORDINGS,
    Project,
    broken_model,
    changed,
    incus,
    left_of,
    machine,
    mute_model,
    post_recording,
    request,
    wait_until,
)
from tests.seeds import FAULT_SEED
from tests.sizes import sizes, without_cards

DOMAIN, SUBNET = "stt-e2e-gw", "10.213.75"
UNIT = "faster-whisper.service"
SERVERS = ("stt", "stt-2")
#: How many faults there are, and how many requests at least (`make test-faults`: 20 and 2,000).
FAULTS = int(os.environ.get("STT_GATEWAY_FAULTS", "4"))
REQUESTS = int(os.environ.get("STT_GATEWAY_REQUESTS", "0"))
#: Seconds to listen once the work is done.
LISTENED = 45
#: The settings and machines of the first `up`.
FIRST: dict[str, Any] = {}


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """Two servers and a gateway, as docs/scale.md has them, up."""
    stack = Project(tmp_path_factory.mktemp("gateway"), DOMAIN, SUBNET)
    _, several, _ = sizes()
    stack.machines = {
        name: without_cards(declared) | machine(*declared["roles"])
        for name, declared in several["domains"]["ai-tools"]["machines"].items()
    }
    stack.write()
    try:
        stack.up()
        FIRST.update(copy.deepcopy({"settings": stack.settings, "machines": stack.machines}))
        yield stack
    finally:
        stack.destroy()
    assert left_of(DOMAIN) == []


@pytest.fixture
def project(pool: Project) -> Project:
    """As at first, and every server in turn."""
    pool.settings, pool.machines = (
        copy.deepcopy(FIRST["settings"]),
        copy.deepcopy(FIRST["machines"]),
    )
    pool.write()
    pool.settle()
    wait_until(lambda: all_serve(pool), 300)
    return pool


def servers(project: Project) -> dict[str, Any]:
    """What the gateway knows of its servers, by name."""
    answer = request(project.outputs()["stt_health_url"])
    return {each["name"]: each for each in answer.json["servers"]}


def all_serve(project: Project) -> bool:
    """Whether every server answers, and the gateway has seen it for some seconds."""
    urls = project.outputs()["gateway_servers"].values()
    answers = all(request(f"{url}/ready", timeout=2).status == 200 for url in urls)
    time.sleep(3)
    return answers and all(each["serving"] for each in servers(project).values())


def calm_seconds(project: Project) -> float:
    """The seconds for which every server has been in turn; 0 if one is not."""
    every = servers(project).values()
    last = max(datetime.fromisoformat(each["since"]).timestamp() for each in every)
    return time.time() - last if all(each["serving"] for each in every) else 0


def load_on(project: Project, clients: int = 4) -> Load:
    """A load on the gateway; two recordings, so that no answer can be another client's."""
    return under_load(project, "one two three", "hello world", clients=clients)


def invocations(project: Project) -> list[str]:
    """The run of each server's service: another start has another one."""
    words = ("systemctl", "show", "-P", "InvocationID", UNIT)
    return [project.inside(*words, machine=name) for name in SERVERS]


def test_one_address_before_both(project: Project) -> None:
    outputs = project.outputs()
    assert outputs["stt_url"] == f"http://{SUBNET}.3:8000/v1"
    assert outputs["stt_health_url"] == f"http://{SUBNET}.3:8000/health"
    assert outputs["gateway_servers"] == {
        "stt": f"http://{SUBNET}.1:8000",
        "stt-2": f"http://{SUBNET}.2:8000",
    }
    assert outputs["gateway_check"]["text"] == "one two three"
    assert set(outputs["machines"]) >= {f"{DOMAIN}/{name}" for name in (*SERVERS, "gateway")}
    assert project.transcribe("hello_world").json["text"] == "hello world"
    assert project.unchanged()


def test_a_wrong_key_is_refused(project: Project) -> None:
    url, recording = project.outputs()["stt_url"], RECORDINGS / "hello_world.wav"
    for key in ("", "a-wrong-key"):
        answer = post_recording(url, recording, "whisper-1", key)
        assert answer.status == 401
        assert answer.json["error"]["code"] == "invalid_api_key"


def test_status_has_the_servers_and_their_requests(project: Project) -> None:
    with load_on(project) as load:
        pass
    said = project.make("status").stdout
    assert load.wrong == []
    for name in SERVERS:
        found = re.search(
            rf"\b{name} \(http://{SUBNET}\.\d:8000\): gets requests .*?(\d+) tried", said
        )
        assert found and int(found[1]) > 0, said


def test_no_worker_waits_for_a_client_that_another_has(project: Project) -> None:
    """The socket that systemd holds comes without blocking; nginx leaves that as it is."""
    pid = project.inside("systemctl", "show", "-P", "MainPID", "stt-gateway", machine="gateway")
    held = project.inside("cat", f"/proc/{pid}/fdinfo/3", machine="gateway")
    flags = re.search(r"flags:\s*(\d+)", held)
    assert flags and int(flags[1], 8) & os.O_NONBLOCK


def test_whoever_restarts_the_socket_restarts_the_gateway(project: Project) -> None:
    """As often as one likes; nginx has no other way to listen."""
    units = ["stt-gateway.socket", "stt-gateway.service"]
    for _ in range(6):
        project.inside("systemctl", "restart", units[0], machine="gateway")
        assert project.transcribe("hello_world").status == 200
        project.inside("systemctl", "restart", *units, machine="gateway")
    assert project.inside("systemctl", "is-active", *units, machine="gateway") == "active\nactive"
    assert project.unchanged()


def test_another_model_goes_through_them_one_by_one(project: Project) -> None:
    """Each is out of turn while it changes, and no request is refused or answered wrongly.

    A server that left its turn several times within a minute gets it back later, and the next one
    has left its own by then: so it begins after a minute without that.
    """

    def serving() -> tuple[bool, ...]:
        found = servers(project)
        return tuple(found[name]["serving"] for name in SERVERS)

    wait_until(lambda: calm_seconds(project) > 60, 600, pause=1)
    before = invocations(project)
    project.set(quantization="float32")
    with load_on(project) as load, asked_meanwhile(serving) as served:
        said = project.up()
    assert load.wrong == [] and load.good > 20
    assert all(a != b for a, b in zip(before, invocations(project), strict=True))
    assert {f"{DOMAIN}/{name}/stt_server/service" for name in SERVERS} <= set(changed(said))
    assert (False, True) in served and (True, False) in served
    assert (False, False) not in served
    assert served.index((False, True)) < served.index((True, False))


@pytest.mark.seldom
def test_another_port_comes_to_the_first_server_first(project: Project) -> None:
    """Then to the gateway, and then to the other server: no request is refused."""
    project.set(port=8001)
    with load_on(project) as load:
        project.up()
    assert load.wrong == [] and load.good > 10
    assert project.outputs()["gateway_servers"]["stt"] == f"http://{SUBNET}.1:8001"
    assert project.unchanged()


@pytest.mark.parametrize("make", [broken_model, pytest.param(mute_model, marks=pytest.mark.seldom)])
def test_a_bad_model_stops_at_the_first(project: Project, make: Any) -> None:
    """It goes back, and the other one was not touched."""
    before = invocations(project)
    project.set(model=make(project))
    with load_on(project) as load:
        said = project.fails()
    assert load.wrong == [] and load.good > 10
    after = invocations(project)
    assert after[1] == before[1]
    assert f"{DOMAIN}/stt-2/stt_server/service" not in changed(said)
    wait_until(lambda: all_serve(project), 300)


def kill(project: Project, server: str) -> None:
    """The process ends at once."""
    project.inside("systemctl", "kill", "-s", "KILL", UNIT, machine=server)


def stop_machine(project: Project, server: str) -> None:
    """The container ends at once, and starts again."""
    incus("stop", "--force", server, project=DOMAIN)
    time.sleep(3)
    incus("start", server, project=DOMAIN)


def cut_network(project: Project, server: str) -> None:
    """Nothing comes or goes for some seconds."""
    project.inside("ip", "link", "set", "eth0", "down", machine=server)
    time.sleep(6)
    project.inside("ip", "link", "set", "eth0", "up", machine=server)


def hang(project: Project, server: str) -> None:
    """It takes connections, and answers nothing."""
    project.inside("systemctl", "kill", "-s", "STOP", UNIT, machine=server)
    time.sleep(15)
    project.inside("systemctl", "kill", "-s", "CONT", UNIT, machine=server)


KINDS = (kill, stop_machine, cut_network, hang)


def chosen(number: int) -> Iterator[tuple[Callable[[Project, str], None], str, float]]:
    """Faults of every kind, each with its server and the seconds before it."""
    chance = random.Random(FAULT_SEED)
    kinds: list[Callable[[Project, str], None]] = []
    for _ in range(number):
        kinds = kinds or chance.sample(KINDS, len(KINDS))
        yield kinds.pop(), chance.choice(SERVERS), chance.uniform(0, 2)


@pytest.mark.seldom
def test_what_befalls_a_server_loses_nothing(project: Project) -> None:
    """Killed, its machine stopped, its network cut, its engine hung; each comes back."""
    rows: list[str] = []
    with load_on(project, clients=8) as load:
        for befall, server, wait in chosen(FAULTS):
            time.sleep(wait)
            had, began = load.good, time.monotonic()
            befall(project, server)
            # Two servers are all there are: the next comes once this one is over.
            wait_until(lambda: all_serve(project), 300)
            took = time.monotonic() - began
            rows.append(f"{befall.__name__:14} {server:6} {took:5.1f} s  {load.good - had} answers")
            assert load.wrong == [], rows
            assert load.good > had, rows
        wait_until(lambda: load.good >= REQUESTS, 1200)
    assert load.wrong == [], rows
    print(
        "\n".join([*rows, f"{load.good} answers, the longest time without one {load.outage:.1f} s"])
    )


@pytest.mark.seldom
def test_the_gateway_calls_nobody(project: Project) -> None:
    """Neither nginx nor the watcher, while they start, work and rest; nor the servers behind."""
    with heard(project, LISTENED) as recorder:
        project.inside("systemctl", "restart", "stt-gateway*", machine="gateway")
        wait_until(lambda: all_serve(project), 300)
        assert project.transcribe("hello_world").status == 200
    recorder.assert_nobody_was_called()


@pytest.mark.seldom
def test_more_servers_change_nothing_for_the_others(project: Project) -> None:
    """Incus writes the bridge's rules anew meanwhile: all answers come through, and no rule of
    this program's stays.
    """
    before = invocations(project)
    project.machines["more"] = {**copy.deepcopy(project.machines["stt-2"]), "count": 2}
    project.write()
    with load_on(project, clients=8) as load:
        said = project.up()
    assert load.wrong == []
    assert invocations(project) == before
    added = {"more", "more-2"}
    assert {f"{DOMAIN}/{name}/instance" for name in added} <= set(changed(said))
    wait_until(lambda: all(servers(project).get(name, {}).get("serving") for name in added), 300)
    assert project.unchanged()

    def tables() -> str:
        words = ["nft", "list", "tables"]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout

    # Whoever edits the bridge has one meanwhile.
    wait_until(lambda: f"incus-stt.net-{DOMAIN}" not in tables())


@pytest.mark.seldom
def test_another_key_reaches_the_gateway_and_the_servers(project: Project) -> None:
    """The former one is accepted until the gateway refuses it; each is for all servers."""
    outputs, recording = project.outputs(), RECORDINGS / "hello_world.wav"
    url, before = outputs["stt_url"], outputs["stt_api_key"]

    def former() -> tuple[float, int]:
        began = time.monotonic()
        return began, post_recording(url, recording, "whisper-1", before).status

    with ThreadPoolExecutor(1) as pool:
        rotated = pool.submit(project.make, "rotate-key")
        answers = [former()]
        while not rotated.done():
            answers.append(former())
    assert rotated.result().returncode == 0
    assert {status for _, status in answers} == {200, 401}
    assert (answers[0][1], former()[1]) == (200, 401)
    taken, refused = ([at for at, said in answers if said == status] for status in (200, 401))
    assert max(taken) - min(refused) < 10, "nginx's old processes answer for a moment beside others"
    key = project.outputs()["stt_api_key"]
    assert key != before
    statuses = {post_recording(url, recording, "whisper-1", key).status for _ in range(10)}
    assert statuses == {200}
    wait_until(lambda: all_serve(project), 300)
