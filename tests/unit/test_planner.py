"""What fits on a card, what is refused, and what is told instead."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import pulumi
import pytest
import yaml

from declaration.ollama_models import estimated_bytes
from declaration.problems import DeclarationError
from declaration.source_files import ROOT
from engines import ENGINES, Engine
from engines.speech_model import Source
from engines.whisper_models import WHISPER_MODELS
from gpu.cards import Card, Holder, compute_types, parse_cards
from gpu.devices import select_cards
from gpu.memory import stt_memory
from gpu.ollama import OllamaModel, ollama_models, read_sizes
from gpu.planner import GpuPlan, driver_problems, plan_gpu
from roles import ROLES
from stack.declare import declare
from tests.unit.program import host_after, host_with, run
from tests.unit.values import CARD, DEFAULTS, STACKS

LLAMA = OllamaModel("llama3.1:8b", 6000)


def card(gib: float, capability: tuple[int, int] | None = (8, 9), driver: str = "560.1") -> Card:
    return replace(CARD, memory=round(gib * 1024), capability=capability, driver=driver)


def plan(cards: Card | list[Card], *ollama: OllamaModel, **settings: Any) -> GpuPlan:
    declaration = declare({**DEFAULTS, **settings}, ROLES, ROOT)
    every = cards if isinstance(cards, list) else [cards]
    return plan_gpu(declaration, declaration.services[0], every, ollama)


def test_the_catalogue_holds_what_was_measured() -> None:
    """The document's ``~6/~4/~3 GB`` and its table by model are rounded up; no figure is above."""
    gpu = {name: model.gpu for name, model in WHISPER_MODELS.items()}
    document = {"small": 2, "medium": 4, "large-v3-turbo": 6, "large-v3": 10}
    for name, gib in document.items():
        figure = gpu[name]["float16"]
        assert figure.mib < (gib + 0.5) * 1024 and figure.source is Source.MEASURED, name
    assert gpu["large-v3-turbo"]["int8"].mib < 3 * 1024
    # As much text as was measured takes what was measured; full windows of medium took 5100 MiB.
    assert (gpu["tiny"]["float16"].mib, gpu["large-v3"]["float16"].mib) == (979 + 23, 6389 + 625)
    growth = gpu["medium"]["float16"].mib - 4023
    assert 5100 < 4023 + growth * (224 - 50) / 50 < 5100 * 1.1


@pytest.mark.parametrize("engine", ENGINES.values(), ids=list(ENGINES))
def test_every_model_has_a_figure_for_every_compute_type(engine: Engine) -> None:
    for name, model in engine.models.items():
        for device, types in engine.compute_types.items():
            assert set(model.spec.memory(device)) >= set(types), (name, device)


def test_fewer_bytes_a_weight_never_take_more() -> None:
    for name, model in WHISPER_MODELS.items():
        mib = {kind: figure.mib for kind, figure in model.gpu.items()}
        assert mib["int8_float16"] < mib["float16"] <= mib["int8_float32"] <= mib["float32"], name


def test_a_plan_cannot_be_changed() -> None:
    """Not its fields, and not what is in them: it is one value."""
    for found in (plan(card(12)), plan(card(3)), plan(card(8), OllamaModel("a"), LLAMA)):
        with pytest.raises(FrozenInstanceError):
            found.compute_type = "int8"  # type: ignore[misc]
        assert {type(each) for each in (found.notes, found.warnings, found.problems)} == {tuple}
        assert hash(found) == hash(replace(found))


def test_what_fits_is_said_with_what_is_left() -> None:
    found = plan(card(12))
    assert (found.compute_type, found.problems, found.warnings) == ("float16", (), ())
    text = " ".join(found.notes)
    assert "large-v3-turbo in float16 takes about 3.6 GiB" in text
    assert "fits, 7.9 GiB to spare" in text
    assert "under 16 GiB" in text  # the document's advice


@pytest.mark.parametrize(
    ("gib", "capability", "engine", "chosen"),
    [
        (24, (8, 9), "speaches", "float16"),
        (10, (8, 6), "speaches", "float16"),
        (8, (8, 6), "speaches", "int8_float16"),
        (6, (8, 6), "speaches", "int8_float16"),
        (8, (6, 1), "speaches", "int8_float32"),
        (16, (5, 2), "speaches", "float32"),
        (10, (12, 0), "faster-whisper", "float16"),
        (6, (12, 0), "faster-whisper", "int8_float16"),
        (24, (8, 9), "parakeet", "float32"),
        (12, None, "speaches", "float16"),
    ],
)
def test_auto_takes_the_best_that_fits(
    gib: float, capability: tuple[int, int] | None, engine: str, chosen: str
) -> None:
    found = plan(card(gib, capability), engine=engine)
    assert found.compute_type == chosen
    assert f"stt:quantization auto: {chosen}, the best that fits" in found.notes[0]


def test_the_document_s_advice_for_a_small_card_is_beside_ollama(tmp_path: Path) -> None:
    infra = yaml.safe_load((STACKS / "infra.yml").read_text())
    infra["domains"]["ai-tools"]["machines"]["gpu-server"]["roles"].remove("ollama_server")
    (tmp_path / "infra.yml").write_text(yaml.safe_dump(infra))
    beside, alone = plan(card(8)), plan(card(8), infra=str(tmp_path / "infra.yml"))
    assert (beside.compute_type, alone.compute_type) == ("int8_float16", "float16")
    assert "int8_float16, the best that fits, beside Ollama on a card of" in beside.notes[0]
    assert "under 16 GiB" not in " ".join(alone.notes)
    assert plan(card(8), quantization="float16").compute_type == "float16"


@pytest.mark.parametrize(
    ("mib", "told"), [(8188, True), (12282, True), (15360, False), (16380, False)]
)
def test_both_at_once_are_advised_against_below_16_gb(mib: int, told: bool) -> None:
    """With declared models too; a card with 16 GB tells less than 16 GiB."""
    for ollama in ((), (OllamaModel("small", 500),)):
        found = plan(replace(CARD, memory=mib), *ollama, quantization="int8_float16")
        assert ("do not run a large language model" in " ".join(found.notes)) == told


def test_the_advice_is_there_where_the_card_is_full_now() -> None:
    declaration = declare(DEFAULTS, ROLES, ROOT)
    for gib, told in ((12, True), (16, False)):
        service = declaration.services[0]
        now = [Holder("a game", (gib - 1) * 1024)]
        found = plan_gpu(declaration, service, [card(gib)], [LLAMA], now=now)
        assert "fits only after some of it is freed" in " ".join(found.warnings)
        assert ("do not run a large language model" in " ".join(found.notes)) == told


def test_the_advice_is_there_where_the_model_s_size_is_unknown() -> None:
    for gib, told in ((12, True), (16, False)):
        found = plan(card(gib), model="someone/some-model")
        assert "is not known, so whether it fits" in found.warnings[0]
        assert ("do not run a large language model" in " ".join(found.notes)) == told


def test_what_is_on_the_card_now_counts_by_name() -> None:
    ps = {"models": [{"name": "huge:latest", "size": 20 << 30, "size_vram": 20 << 30}]}
    first = run("gpu")
    host = host_after(first, host_with(CARD))
    state = host.machines["ai-tools", "gpu-server"]
    machines = {**host.machines, ("ai-tools", "gpu-server"): replace(state, answers={"ps": ps})}
    log = "\n".join(run("gpu", replace(host, machines=machines), first).log)
    assert "now Ollama's huge:latest holds 20.0 GiB: fits only after some of it is freed" in log
    inside = "0::/lxc.payload.ai-tools_gpu-server/system.slice"
    lines = (
        f"00000000:01:00.0, 10, 5000, {inside}/ollama.service",
        f"00000000:01:00.0, 11, 5000, {inside}/vosk.service",
        "00000000:01:00.0, 12, 3072, 0::/lxc.payload.games_box/system.slice/minecraft.service",
        "00000000:01:00.0, 13, 4096, 0::/user.slice/session-1.scope",
        "00000000:02:00.0, 14, 9000, 0::/user.slice",
        "00000000:01:00.0, 15, [N/A], 0::/user.slice",
    )
    log = "\n".join(run("gpu", replace(host, gpu_processes="\n".join(lines)), first).log)
    assert "now games_box: minecraft holds 3.0 GiB; process 13 holds 4.0 GiB: fits, 9.8" in log
    assert run("gpu", replace(host, gpu_processes="\n".join(lines)), first).done == {}


#: Gigabytes to download, as Ollama's README has them (0.9.6).
LIBRARY = {
    "gemma3:1b": 0.815,
    "gemma3:4b": 3.3,
    "gemma3:12b": 8.1,
    "gemma3:27b": 17,
    "qwq:32b": 20,
    "deepseek-r1:7b": 4.7,
    "deepseek-r1:671b": 404,
    "llama3.3:70b": 43,
    "llama3.2:3b": 2.0,
    "llama3.2:1b": 1.3,
    "llama3.2-vision:11b": 7.9,
    "llama3.2-vision:90b": 55,
    "llama3.1:8b": 4.7,
    "llama3.1:405b": 231,
    "phi4:14b": 9.1,
    "phi4-mini:3.8b": 2.5,
    "mistral:7b": 4.1,
    "codellama:7b": 3.8,
    "llava:7b": 4.5,
    "granite3.3:8b": 4.9,
}


@pytest.mark.parametrize("name", LIBRARY)
def test_a_name_tells_the_size_of_a_model(name: str) -> None:
    assert estimated_bytes(name) == pytest.approx(LIBRARY[name] * 1e9, rel=0.3)


def test_names_of_other_quantizations_and_such_without_a_size() -> None:
    usual = estimated_bytes("a:8b-instruct-q4_K_M")
    assert usual == estimated_bytes("a:8b") == estimated_bytes("host/of/a:8B-instruct-2507")
    sizes = [estimated_bytes(f"a:8b-{each}") for each in ("iq2_m", "q4_0", "q5_1", "q8_0", "fp16")]
    assert all(sizes) and sizes == sorted(sizes, key=lambda size: size or 0)
    assert estimated_bytes("a:8b-text-bf16") == sizes[-1] == pytest.approx(16e9, rel=0.1)
    for name in ("mistral", "a:latest", "a:e4b", "a:8x7b", "hf.co/a/b:Q4_K_M", "8b", "a:big-8b"):
        assert estimated_bytes(name) is None, name


def test_a_model_that_is_not_pulled_counts_by_its_name() -> None:
    """So a first run chooses what the next one does, and the preview says how much comes."""
    models = {"models": ["llama3.2:3b"]}
    small = host_with(replace(CARD, memory=8188))
    first = run("gpu", small, ollama=models)
    assert "llama3.2:3b about 3.0 GiB (by its name; it is not pulled yet): fits, 1." in "".join(
        first.log
    )
    assert first.steps["ai-tools/gpu-server/ollama_server/models"].spec["download"] == 2246
    tags = {"models": [{"name": "llama3.2:3b", "size": 2_019_393_189}]}
    host = host_after(first, small)
    state = host.machines["ai-tools", "gpu-server"]
    machines = {**host.machines, ("ai-tools", "gpu-server"): replace(state, answers={"tags": tags})}
    then = run("gpu", replace(host, machines=machines), first, ollama=models)
    assert then.done == {} and "llama3.2:3b about 2.8 GiB: fits" in "".join(then.log)
    large = {"models": ["llama3.1:70b"], "keepAlive": "-1"}
    with pytest.raises(pulumi.RunError, match=r"llama3\.1:70b about 51\.\d GiB \(by its name"):
        run("gpu", ollama=large)


@pytest.mark.parametrize("stack", ["gpu", "gpu-8gb"])
def test_the_language_model_of_a_shipped_stack_fits_beside_the_stt_model(stack: str) -> None:
    memory = {"gpu": 24564, "gpu-8gb": 8188}[stack]
    declared = yaml.safe_load((STACKS / f"Pulumi.{stack}.yaml").read_text())["config"]
    models = declared["stt:ollama"]["models"]
    log = "\n".join(
        run(stack, host_with(replace(CARD, memory=memory)), ollama={"models": models}).log
    )
    assert models and all(f"{each} about" in log for each in models) and ": fits, " in log
    assert "take turns" not in log


def test_auto_leaves_room_for_ollama_where_it_can() -> None:
    assert plan(card(9.5), LLAMA).compute_type == "int8_float16"
    assert plan(card(12), LLAMA).compute_type == "float16"
    assert "while Ollama's models are unloaded" in plan(card(8), LLAMA).notes[0]


def test_they_take_turns_where_both_do_not_fit() -> None:
    found = plan(card(8), LLAMA, quantization="float16")
    assert not found.problems
    text = " ".join(found.warnings)
    assert "they fit only if they take turns" in text and "make flush" in text


def test_a_model_that_ollama_keeps_takes_its_room_for_good() -> None:
    found = plan(card(8), LLAMA, quantization="float16", ollama={"keepAlive": "-1"})
    message = str(found.problems[0])
    assert "does not fit" in message and "llama3.1:8b about 5.9 GiB" in message
    assert "stt:ollama.keepAlive 5m" in message


def test_a_second_card_takes_ollama() -> None:
    assert not plan([card(8), card(8)], LLAMA, ollama={"keepAlive": "-1"}).problems


def test_a_refusal_names_what_would_fit_the_nearest_first() -> None:
    message = str(plan(card(4), model="large-v3", quantization="float16").problems[0])
    near = message.partition("the nearest first: ")[2].split("; ")
    assert near[0].startswith("large-v3-turbo in int8_float16 (2.8 GiB)")
    assert near[1].startswith("medium in int8_float16")
    assert near[2].startswith("small in float16")
    assert all("large-v3 " not in each and ".en" not in each for each in near[:4])
    same = str(plan(card(6.5), model="large-v3", quantization="float16").problems[0])
    assert "nearest first: large-v3 in int8_float16 (5.4 GiB)" in same


def test_a_model_that_nobody_knows_is_not_guessed(tmp_path: Path) -> None:
    found = plan(card(4), model="someone/some-model")
    assert not found.problems and "is not known, so whether it fits" in found.warnings[0]
    (tmp_path / "model.bin").write_bytes(b"")
    with (tmp_path / "model.bin").open("r+b") as file:
        file.truncate(3_000_000_000)
    assert plan(card(4), model=str(tmp_path), quantization="float16").problems
    assert not plan(card(8), model=str(tmp_path), quantization="float16").problems
    # Its weights in int8 take half as much; the rest stays.
    model = declare({**DEFAULTS, "model": str(tmp_path)}, ROLES, ROOT).services[0].model
    half, int8 = (stt_memory(model, kind, "cuda") for kind in ("float16", "int8_float16"))
    assert half and int8
    assert half.mib - int8.mib == pytest.approx(1_500_000_000 / 2**20, abs=1)


@pytest.mark.parametrize(
    ("capability", "engine", "refused", "kept"),
    [
        ((6, 1), "speaches", "float16", "int8_float32"),
        ((6, 1), "speaches", "int8_float16", "float32"),
        ((5, 0), "speaches", "int8", "float32"),
        ((7, 5), "speaches", "bfloat16", "float16"),
        ((12, 0), "speaches", "int8", "float16"),
        ((12, 0), "speaches", "int8_float16", "bfloat16"),
    ],
)
def test_a_type_that_the_card_would_replace_is_refused(
    capability: tuple[int, int], engine: str, refused: str, kept: str
) -> None:
    found = plan(card(24, capability), engine=engine, quantization=refused)
    message = str(found.problems[0])
    assert f'stt:quantization: "{refused}" does not run on' in message
    assert kept in message.partition("Allowed: ")[2]
    assert refused not in message.partition("Allowed: ")[2].rstrip(".").split(", ")


def test_newer_ctranslate2_runs_int8_on_blackwell() -> None:
    assert "int8" in compute_types(ENGINES["faster-whisper"], card(8, (12, 0)))
    assert "int8" not in compute_types(ENGINES["speaches"], card(8, (12, 0)))


def test_an_old_driver_is_refused() -> None:
    assert "470.82 is too old for CUDA 12" in str(plan(card(24, driver="470.82")).problems[0])
    assert "too old for Ollama" in str(plan(card(24, driver="535.1"), LLAMA).problems[0])


def test_cards_are_read_from_incus_and_nvidia_smi() -> None:
    resources = {
        "gpu": {
            "cards": [
                {
                    "pci_address": "0000:01:00.0",
                    "vendor_id": "10de",
                    "product_id": "2684",
                    "drm": {"id": 1},
                    "nvidia": {"nvrm_version": "1", "architecture": "8.9", "model": "RTX"},
                },
                {"pci_address": "0000:03:00.0", "vendor_id": "1002", "product": "Radeon"},
            ]
        }
    }
    said = "00000000:01:00.0, NVIDIA GeForce RTX 4090, 24564, 8.9, 560.35.03\nnonsense\n"
    nvidia, amd = parse_cards(resources, said)
    assert nvidia == Card("0000:01:00.0", "10de", "2684", "1", "NVIDIA GeForce RTX 4090", 24564,
                          (8, 9), "560.35.03")  # fmt: skip
    assert (amd.nvidia, amd.name, amd.memory) == (False, "Radeon", None)
    alone = parse_cards(resources, "")[0]
    assert (alone.memory, alone.capability) == (None, (8, 9))
    # Of a member or a remote the machines tell; the host's own word is better, and only Incus says
    # which cards there are.
    made_up = "00000000:05:00.0, NVIDIA H200, 143771, 9.0, 560.35.03\n"
    assert parse_cards(resources, "", said + made_up) == [nvidia, amd]
    other = said.replace("24564", "1")
    assert parse_cards(resources, said, other) == [nvidia, amd]
    assert parse_cards(resources, made_up, other)[0].memory == 1
    # nvidia-smi's [N/A] is no figure.
    strange = parse_cards({}, "00000000:01:00.0, GPU, [N/A], [N/A], 1\n")[0]
    assert (strange.memory, strange.capability) == (None, None)


@pytest.mark.parametrize("said", ["²", "٣", "-1", "1e4", "9" * 5000, ""])
def test_what_is_no_figure_is_not_known(said: str) -> None:
    """A machine may say anything of its cards."""
    [found] = parse_cards({}, f"00000000:01:00.0, GPU, {said}, 8.{said}, {said}.1\n")
    assert (found.memory, found.capability) == (None, None)
    assert driver_problems(found, with_ollama=True) == ()


@pytest.mark.parametrize(
    ("device", "seen"),
    [
        ({}, ["0000:01:00.0", "0000:02:00.0"]),
        ({"pci": "0000:02:00.0"}, ["0000:02:00.0"]),
        ({"pci": "02:00.0"}, ["0000:02:00.0"]),
        ({"id": "0"}, ["0000:01:00.0"]),
        ({"vendorid": "10DE", "productid": "1234"}, ["0000:02:00.0"]),
        ({"vendorid": "1002"}, ["0000:03:00.0"]),
        ({"productid": "1234"}, ["0000:02:00.0"]),
        ({"productid": "7550"}, ["0000:03:00.0"]),
        ({"productid": "1ABC"}, ["0000:04:00.0"]),
        ({"vendorid": "1002", "productid": "1234"}, []),
        ({"pci": "0000:09:00.0"}, []),
    ],
)
def test_a_device_gives_the_cards_that_it_names(device: dict[str, str], seen: list[str]) -> None:
    cards = [
        Card("0000:01:00.0", "10de", "2684", "0"),
        Card("0000:02:00.0", "10de", "1234", "1"),
        Card("0000:03:00.0", "1002", "7550", "2"),
        Card("0000:04:00.0", "8086", "1abc", "3"),
    ]
    assert [each.pci for each in select_cards([device], cards)] == seen


def test_a_part_of_a_card_has_no_known_memory() -> None:
    device = {"gputype": "mig", "mig.uuid": "x"}
    assert select_cards([device], [CARD])[0].memory is None


def test_sizes_are_those_of_the_files_whatever_is_loaded() -> None:
    tags = {"models": [{"name": "a:1", "size": 2**30}, {"name": "b:1", "size": 2**31}]}
    loaded = {"models": [{"name": "b:1", "size": 3 * 2**30, "size_vram": 2**30}]}
    found = read_sizes(f"{json.dumps(tags)}\n{json.dumps(loaded)}")
    assert found == {"a:1": round(1024 * 1.2) + 512, "b:1": round(2048 * 1.2) + 512}
    assert read_sizes("") == read_sizes("no json\n[]\n") == {}


@pytest.mark.parametrize(
    ("declared", "listed"),
    [
        ("llama3.2", "llama3.2:latest"),
        ("llama3.2:3b", "llama3.2:3b"),
        ("registry.example:5000/team/llama3.2", "registry.example:5000/team/llama3.2:latest"),
        ("registry.example:5000/team/llama3.2:3b", "registry.example:5000/team/llama3.2:3b"),
    ],
)
def test_a_model_without_a_tag_is_ollama_s_latest(declared: str, listed: str) -> None:
    answer = json.dumps({"models": [{"name": listed, "size": 1 << 30}]})
    [model] = ollama_models([declared], [answer])
    assert model == OllamaModel(declared, 1741)


# The program with it.


def test_the_preview_is_refused_where_it_does_not_fit() -> None:
    small = host_with(card(3))
    with pytest.raises(pulumi.RunError, match="does not fit on RTX 4090"):
        run("gpu", small)
    assert run("gpu", small, model="small").commands
    idle = "stt:force: has no effect: what is declared fits"
    assert idle in "\n".join(run("gpu", force=True).log)
    forced = run("gpu", small, force=True)
    assert idle not in "\n".join(forced.log)
    assert forced.outputs["stt_quantization"] == "int8_float16"


def test_auto_reaches_the_engine() -> None:
    service = run("gpu", host_with(card(6))).steps["ai-tools/gpu-server/stt_server/service"]
    assert service.spec["variables"]["WHISPER__COMPUTE_TYPE"] == "int8_float16"


@pytest.mark.parametrize(
    ("engine", "kind"),
    [("parakeet", "float32"), pytest.param("speaches", "float16", marks=pytest.mark.sweep)],
)
def test_auto_and_the_type_that_it_means_are_the_same_specs(engine: str, kind: str) -> None:
    """Parakeet's files and directory are chosen by the type: `auto` would never converge."""
    auto, said = (run("gpu", engine=engine, quantization=each) for each in ("auto", kind))
    assert {name: each.stdin for name, each in auto.commands.items()} == {
        name: each.stdin for name, each in said.commands.items()
    }
    texts = [each.stdin for each in auto.steps.values()]
    assert not any('"auto"' in text or "-auto" in text for text in texts)
    again = run("gpu", host_after(auto), auto, engine=engine, quantization="auto")
    assert (again.done, again.drift) == ({}, {})


def instance(project: str, name: str, gpu: bool) -> dict[tuple[str, str, str], Any]:
    devices = {"card": {"type": "gpu"}} if gpu else {"root": {"type": "disk"}}
    return {("instance", project, name): {"expanded_devices": devices, "status": "Stopped"}}


def test_another_owner_of_a_gpu_on_the_host_is_refused_by_name(tmp_path: Path) -> None:
    objects = instance("lab", "trainer", True) | instance("lab", "plain", False)
    live = host_with(CARD, objects=objects)
    with pytest.raises(pulumi.RunError, match=r"trainer \(project lab\)") as caught:
        run("gpu", live)
    assert "plain" not in str(caught.value)
    infra = yaml.safe_load((STACKS / "infra.yml").read_text())
    infra["global"]["gpu_policy"] = "shared"
    (tmp_path / "infra.yml").write_text(yaml.safe_dump(infra))
    assert run("gpu", live, infra=str(tmp_path / "infra.yml")).commands
    assert run("cpu", live).commands  # no GPU is asked for


def test_its_own_machine_is_no_other_owner() -> None:
    live = host_with(CARD, objects=instance("ai-tools", "gpu-server", True))
    live = replace(live, projects={"ai-tools": {"user.managed-by": "incus-stt"}})
    assert run("gpu", live).commands


GPU_DEVICES: list[tuple[dict[str, str], str]] = [
    ({"gputype": "sriov"}, '"sriov" is not for containers. Allowed: physical, mig'),
    ({"pci": "1"}, "Use one such as 0000:01:00.0"),
    ({"pcl": "0000:01:00.0"}, 'Did you mean "pci"?'),
    ({"vendorid": "nvidia"}, "Use one such as 10de"),
    ({"pci": "0000:01:00.0", "id": "0"}, "Name the card by pci, or by id"),
    ({"gputype": "mig"}, "Add mig.uuid"),
    ({"mode": "rw"}, "Use one such as 0660"),
]


def gpu_infra(tmp_path: Path, **device: str) -> str:
    infra = yaml.safe_load((STACKS / "infra.yml").read_text())
    gpu = infra["domains"]["ai-tools"]["profiles"]["nvidia-compute"]["devices"]["gpu"]
    gpu |= device
    (tmp_path / "infra.yml").write_text(yaml.safe_dump(infra))
    return str(tmp_path / "infra.yml")


@pytest.mark.parametrize(("device", "expected"), GPU_DEVICES, ids=str)
def test_a_gpu_device_that_incus_would_not_take_is_refused(
    device: dict[str, str], expected: str, tmp_path: Path
) -> None:
    with pytest.raises(DeclarationError) as caught:
        declare({**DEFAULTS, "infra": gpu_infra(tmp_path, **device)}, ROLES, ROOT)
    assert expected in str(caught.value)
    assert "profiles.nvidia-compute.devices.gpu" in str(caught.value)


def test_a_card_that_is_not_there_is_said(tmp_path: Path) -> None:
    infra = gpu_infra(tmp_path, pci="0000:09:00.0")
    with pytest.raises(pulumi.RunError, match=r"There are: RTX 4090 at pci 0000:01:00\.0"):
        run("gpu", infra=infra)


def test_an_amd_card_is_ollama_s_and_the_engine_takes_the_cpu(tmp_path: Path) -> None:
    infra = gpu_infra(tmp_path, vendorid="1002")
    amd = Card("0000:03:00.0", "1002", "7550", "0", "Radeon RX 9070")
    program = run("gpu", host_with(amd), infra=infra)
    profile = program.commands["ai-tools/profile/nvidia-compute"].data
    assert not any(key.startswith("nvidia.") for key in profile["config"])
    service = program.steps["ai-tools/gpu-server/stt_server/service"]
    assert service.spec["variables"]["WHISPER__INFERENCE_DEVICE"] == "cpu"
    with pytest.raises(pulumi.RunError, match="sees no AMD card"):
        run("gpu", infra=infra)


def test_mig_and_pci_reach_incus(tmp_path: Path) -> None:
    uuid = "MIG-9a8b7c6d-1234-5678-9abc-def012345678"
    infra = gpu_infra(tmp_path, gputype="mig", **{"mig.uuid": uuid})
    program = run("gpu", infra=infra)
    profile = program.commands["ai-tools/profile/nvidia-compute"].data
    assert profile["devices"]["gpu"] == {"type": "gpu", "gputype": "mig", "mig.uuid": uuid}
    assert profile["config"]["nvidia.runtime"] == "true"


@pytest.mark.parametrize(
    ("device", "sent"),
    [
        ({"vendorid": "10DE", "productid": "2684"}, {"vendorid": "10de", "productid": "2684"}),
        ({"vendorid": "10de", "productid": "26B5"}, {"vendorid": "10de", "productid": "26b5"}),
        ({"productid": "26B5"}, {"productid": "26b5"}),
    ],
)
def test_ids_in_upper_case_are_matched_and_reach_incus_in_lower_case(
    device: dict[str, str], sent: dict[str, str], tmp_path: Path
) -> None:
    """Incus compares texts; an operator copies what a data sheet says."""
    infra = gpu_infra(tmp_path, **device)
    host = host_with(replace(CARD, product_id=sent["productid"]))
    program = run("gpu", host, infra=infra)
    profile = program.commands["ai-tools/profile/nvidia-compute"].data
    gpu = profile["devices"]["gpu"]
    assert {key: gpu[key] for key in sent} == sent


def test_only_ids_of_gpu_devices_change_their_case(tmp_path: Path) -> None:
    infra = yaml.safe_load((STACKS / "infra.yml").read_text())
    devices = infra["domains"]["ai-tools"]["profiles"]["nvidia-compute"]["devices"]
    devices["usb"] = {"type": "usb", "vendorid": "05AC", "productid": "12A8"}
    (tmp_path / "infra.yml").write_text(yaml.safe_dump(infra))
    values = {**DEFAULTS, "infra": str(tmp_path / "infra.yml")}
    profile = declare(values, ROLES, ROOT).topology.domains[0].profiles["nvidia-compute"]
    assert profile.devices["usb"] == devices["usb"]


def test_a_product_that_is_not_there_is_said_with_the_ids_that_are(tmp_path: Path) -> None:
    infra = gpu_infra(tmp_path, productid="ffff")
    with pytest.raises(pulumi.RunError, match=r"vendorid 10de, productid 2684"):
        run("gpu", infra=infra)


def test_a_product_of_another_vendor_needs_its_vendorid(tmp_path: Path) -> None:
    """Without one the program would prepare the machine for NVIDIA's driver."""
    amd = Card("0000:03:00.0", "1002", "7550", "1", "Radeon RX 9070")
    infra = gpu_infra(tmp_path, productid="7550")
    with pytest.raises(pulumi.RunError, match='Select it by vendorid: "1002" and productid'):
        run("gpu", host_with(CARD, amd), infra=infra)
