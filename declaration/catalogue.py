"""Whisper models by short name. Pure data.

Repositories: the ids that faster-whisper itself maps these names to (``faster_whisper.utils``), but
for large-v3-turbo: Speaches refuses the repository that faster-whisper names, for its README.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class WhisperModel:
    """A model: its repository on Hugging Face (CTranslate2), and whether it knows English alone."""

    repository: str
    english_only: bool = False


CATALOGUE: dict[str, WhisperModel] = {
    "tiny": WhisperModel("Systran/faster-whisper-tiny"),
    "tiny.en": WhisperModel("Systran/faster-whisper-tiny.en", english_only=True),
    "base": WhisperModel("Systran/faster-whisper-base"),
    "base.en": WhisperModel("Systran/faster-whisper-base.en", english_only=True),
    "small": WhisperModel("Systran/faster-whisper-small"),
    "small.en": WhisperModel("Systran/faster-whisper-small.en", english_only=True),
    "medium": WhisperModel("Systran/faster-whisper-medium"),
    "medium.en": WhisperModel("Systran/faster-whisper-medium.en", english_only=True),
    "large-v2": WhisperModel("Systran/faster-whisper-large-v2"),
    "large-v3": WhisperModel("Systran/faster-whisper-large-v3"),
    "large-v3-turbo": WhisperModel("deepdml/faster-whisper-large-v3-turbo-ct2"),
    "distil-large-v3": WhisperModel("Systran/faster-distil-whisper-large-v3", english_only=True),
}

#: Whisper's language codes (``whisper.tokenizer.LANGUAGES``).
LANGUAGES = frozenset(
    """af am ar as az ba be bg bn bo br bs ca cs cy da de el en es et eu fa fi fo fr gl gu ha haw he
    hi hr ht hu hy id is it ja jw ka kk km kn ko la lb ln lo lt lv mg mi mk ml mn mr ms mt my ne nl
    nn no oc pa pl ps pt ro ru sa sd si sk sl sn so sq sr su sv sw ta te tg th tk tl tr tt uk ur uz
    vi yi yo zh yue""".split()
)
