"""What would fit on a card instead of what was asked for."""

from __future__ import annotations

from collections.abc import Sequence

from declaration.languages import LANGUAGES
from engines.model_ref import ModelRef
from stack.declare import Declaration

#: How many other combinations a refusal names.
NAMED = 4


def fitting_combinations(
    declaration: Declaration, model: ModelRef, allowed: Sequence[str], room: int
) -> list[str]:
    """Combinations that fit into ``room`` MiB on a card.

    ``model`` comes first, then smaller ones, the largest first. A model counts only if it
    knows the languages that are wanted.
    """
    models = declaration.engine.models
    names = list(models)
    position = names.index(model.name) if model.name in models else len(names)
    language = declaration.settings.language
    wanted = {language} if language else set(LANGUAGES - {"yue"})
    if model.known:
        wanted &= model.known.languages
    found: list[str] = []
    for name in reversed(names[: position + 1]):
        spec = models[name].spec
        if not wanted <= spec.languages:
            continue
        fitting = [kind for kind in allowed if kind in spec.gpu and spec.gpu[kind].mib <= room]
        for kind in fitting[:3] if name == model.name else fitting[:1]:
            found.append(f"{name} in {kind} ({spec.gpu[kind]})")
    return found[:NAMED]
