"""Several machines with the same role: each by its own hardware, all of them wired and told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from declaration.problems import DeclarationError
from roles import ROLES
from stack.declare import declare
from tests.unit.program import Program, host_after, host_with, run
from tests.unit.values import CARD, DEFAULTS

STT, OLLAMA = ["base_system", "stt_server"], ["base_system", "ollama_server"]
GPU = {"gpu": True, "profiles": ["default", "card"]}
#: A card for one machine of a domain with two STT services, and two of Ollama.
MACHINES: dict[str, Any] = {
    "fast": {"roles": [*OLLAMA, "stt_server"], **GPU},
    "slow": {"roles": [*OLLAMA, "stt_server"]},
    "webui": {"roles": ["base_system", "open_webui"]},
}


@pytest.fixture
def infra(tmp_path: Path) -> Any:
    """Makes a topology of machines; returns its path."""

    def write(machines: dict[str, Any], policy: str = "exclusive") -> str:
        card = {"devices": {"gpu": {"type": "gpu", "gputype": "physical"}}}
        domain = {
            "trust_level": "semi-trusted",
            "subnet": "10.120.0.0/24",
            "profiles": {"card": card},
            "machines": machines,
        }
        file = tmp_path / "infra.yml"
        topology = {"global": {"gpu_policy": policy}, "domains": {"lab": domain}}
        file.write_text(yaml.safe_dump(topology, sort_keys=False))
        return str(file)

    return write


def variables(program: Program, machine: str, role: str) -> dict[str, str]:
    """The variables of a role's service."""
    found: dict[str, str] = program.commands[f"lab/{machine}/{role}/service"].spec["variables"]
    return found


def test_each_machine_has_the_model_and_compute_type_of_its_hardware(infra: Any) -> None:
    program = run("gpu", infra=infra(MACHINES))
    fast, slow = (variables(program, name, "stt_server") for name in ("fast", "slow"))
    assert (fast["WHISPER__INFERENCE_DEVICE"], fast["WHISPER__COMPUTE_TYPE"]) == ("cuda", "float16")
    assert (slow["WHISPER__INFERENCE_DEVICE"], slow["WHISPER__COMPUTE_TYPE"]) == ("cpu", "int8")
    assert program.outputs["stt_quantization"] == "float16"
    log = "\n".join(program.log)
    assert "auto: float16" in log and "auto: int8" in log


def test_a_compute_type_that_one_of_them_cannot_run_is_refused(infra: Any) -> None:
    values = {**DEFAULTS, "infra": infra(MACHINES), "quantization": "float16"}
    with pytest.raises(DeclarationError, match="does not run on a CPU, and slow has no GPU"):
        declare(values, ROLES, Path("/"))


def test_outputs_tell_all(infra: Any) -> None:
    outputs = run("gpu", infra=infra(MACHINES)).outputs
    assert outputs["stt_url"] == "http://10.120.0.1:8000/v1"
    machines = outputs["machines"]
    assert machines["lab/fast"]["stt_url"] == "http://10.120.0.1:8000/v1"
    assert machines["lab/slow"]["stt_url"] == "http://10.120.0.2:8000/v1"
    assert machines["lab/slow"]["stt_model"] == "small"
    assert machines["lab/slow"]["stt_quantization"] == "int8"
    assert machines["lab/slow"]["ollama_url"] == "http://10.120.0.2:11434"
    assert machines["lab/slow"]["stt_check"]["text"] == "one two three"
    assert machines["lab/webui"]["webui_url"].startswith("http://")
    assert outputs["stt_api_key"] not in str(machines)
    both = run("gpu", infra=infra(MACHINES), clients=["phone"]).outputs
    assert both["stt_client_keys"] == {"phone": "key-of-phone"}
    assert "key-of-phone" not in str(both["machines"])


def test_one_machine_of_each_kind_has_the_plain_outputs_only() -> None:
    assert "machines" not in run("gpu").outputs


def test_open_webui_gets_every_ollama_of_its_domain_and_one_stt_service(infra: Any) -> None:
    wired = variables(run("gpu", infra=infra(MACHINES)), "webui", "open_webui")
    assert wired["OLLAMA_BASE_URLS"] == "http://10.120.0.1:11434;http://10.120.0.2:11434"
    assert wired["AUDIO_STT_OPENAI_API_BASE_URL"] == "http://10.120.0.1:8000/v1"
    own = {**MACHINES, "slow": {"roles": [*STT, "open_webui"]}}
    del own["webui"]
    wired = variables(run("gpu", infra=infra(own)), "slow", "open_webui")
    assert wired["AUDIO_STT_OPENAI_API_BASE_URL"] == "http://10.120.0.2:8000/v1"


def test_an_address_of_one_machine_is_none_of_two(infra: Any) -> None:
    values = {**DEFAULTS, "infra": infra(MACHINES), "host": "10.120.0.1"}
    with pytest.raises(DeclarationError) as caught:
        declare(values, ROLES, Path("/"))
    assert str(caught.value.problems[0]) == (
        'stt:host: "10.120.0.1" is not an address of fast and of slow. Allowed: 0.0.0.0, 127.0.0.1.'
    )


def test_a_card_that_two_services_share_is_counted_once(infra: Any) -> None:
    """The second one fits beside the first, or is refused."""
    both = {name: {"roles": STT, **GPU} for name in ("one", "two")}
    program = run("gpu", host_with(replace(CARD, memory=7680)), infra=infra(both, "shared"))
    services = [variables(program, name, "stt_server") for name in ("one", "two")]
    chosen = [service["WHISPER__COMPUTE_TYPE"] for service in services]
    assert chosen == ["float16", "int8_float16"]
    with pytest.raises(Exception, match=r"STT service of one holds 3\.6 GiB"):
        run("gpu", host_with(replace(CARD, memory=6656)), infra=infra(both, "shared"))


def test_what_ollama_holds_of_a_shared_card_counts_wherever_it_is(infra: Any) -> None:
    machines = {"one": {"roles": STT, **GPU}, "two": {"roles": OLLAMA, **GPU}}
    program = run("gpu", infra=infra(machines, "shared"), ollama={"models": ["mistral"]})
    assert any("what mistral takes is known only once it is pulled" in each for each in program.log)


def test_another_machine_does_not_replace_the_first(infra: Any) -> None:
    """They share a volume that one by itself does not have: it comes to the first in place."""
    one = {"one": {"roles": STT}}
    first = run("cpu", infra=infra(one, "shared"))
    both = run(
        "cpu", host_after(first), first, infra=infra({**one, "two": {"roles": STT}}, "shared")
    )
    assert both.done["lab/one/instance"] == "update"
    assert both.done["lab/volume/wheels"] == "create"
    again = run("cpu", host_after(both), both, infra=infra(one, "shared"))
    assert again.done["lab/one/instance"] == "update"
