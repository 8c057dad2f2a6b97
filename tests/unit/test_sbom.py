"""The SBOM is CycloneDX by its schema, and has what is fetched."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import pytest
from jsonschema import Draft7Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT7

from lock import sbom


def schema(name: str) -> Any:
    return json.loads((files("cyclonedx.schema") / "_res" / name).read_text())


@pytest.fixture(scope="module")
def validator() -> Draft7Validator:
    beside = ("spdx.SNAPSHOT.schema.json", "jsf-0.82.SNAPSHOT.schema.json")
    found = [schema(name) for name in beside]
    resources = [(each["$id"], Resource.from_contents(each, DRAFT7)) for each in found]
    return Draft7Validator(
        schema("bom-1.6.SNAPSHOT.schema.json"), registry=Registry().with_resources(resources)
    )


@pytest.fixture(scope="module")
def components() -> dict[str, dict[str, Any]]:
    return {each["bom-ref"]: each for each in sbom.document()["components"]}


@pytest.mark.seldom
def test_it_is_valid(validator: Draft7Validator) -> None:
    found = json.loads(sbom.text())
    assert [error.message for error in validator.iter_errors(found)] == []
    found["components"][0]["type"] = "thing"
    assert len(list(validator.iter_errors(found))) == 1


def test_the_same_locks_make_the_same_one() -> None:
    assert sbom.text() == sbom.text()


def test_what_is_in_it(components: dict[str, dict[str, Any]]) -> None:
    whisper = components["pkg:pypi/faster-whisper@1.2.1"]
    locks = [each["value"] for each in whisper["properties"]]
    assert "stt_server/locks/requirements.txt" in locks
    (distribution,) = whisper["externalReferences"]
    assert len(distribution["hashes"][0]["content"]) == 64
    small = next(each for name, each in components.items() if "faster-whisper-small@" in name)
    assert small["type"] == "machine-learning-model"
    assert {each["name"] for each in small["components"]} >= {"model.bin", "config.json"}
    assert small["licenses"] == [{"expression": "MIT"}]
    assert "pkg:golang/github.com/pulumi/pulumi/sdk/v3@v3.259.0" in components
    # What only Windows gets is nobody's here.
    assert not any("pkg:pypi/colorama@" in name for name in components)


def test_what_has_no_known_licence_has_none(components: dict[str, dict[str, Any]]) -> None:
    assert "licenses" not in components["pkg:generic/distribution-packages"]
