"""OpenAI's response formats of a transcription."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from faster_whisper.transcribe import Segment, TranscriptionInfo


@dataclass(frozen=True)
class Transcript:
    """What was heard."""

    task: str
    info: TranscriptionInfo
    segments: Sequence[Segment]

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(segment.text for segment in self.segments).strip()


def clock(seconds: float, separator: str) -> str:
    """``HH:MM:SS`` and milliseconds after ``separator``; hours may exceed 99."""
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest // 1000:02}{separator}{rest % 1000:03}"


def _json(transcript: Transcript) -> tuple[dict[str, Any] | str, str]:
    return {"text": transcript.text}, "application/json"


def _text(transcript: Transcript) -> tuple[dict[str, Any] | str, str]:
    return transcript.text + "\n", "text/plain"


def _cues(transcript: Transcript, separator: str) -> list[str]:
    # An arrow would end a cue's text; HTML has a word for it.
    return [
        f"{clock(segment.start, separator)} --> {clock(segment.end, separator)}\n"
        f"{segment.text.strip().replace('-->', '->')}\n"
        for segment in transcript.segments
    ]


def _srt(transcript: Transcript) -> tuple[dict[str, Any] | str, str]:
    cues = enumerate(_cues(transcript, ","), start=1)
    return "\n".join(f"{number}\n{cue}" for number, cue in cues), "application/x-subrip"


def _vtt(transcript: Transcript) -> tuple[dict[str, Any] | str, str]:
    return "\n".join(["WEBVTT\n", *_cues(transcript, ".")]), "text/vtt"


def _verbose_json(transcript: Transcript) -> tuple[dict[str, Any] | str, str]:
    body: dict[str, Any] = {
        "task": transcript.task,
        "language": transcript.info.language,
        "language_probability": transcript.info.language_probability,
        "duration": transcript.info.duration,
        "text": transcript.text,
        "segments": [
            {
                "id": segment.id,
                "seek": segment.seek,
                "start": segment.start,
                "end": segment.end,
                "text": segment.text,
                "tokens": segment.tokens,
                "temperature": segment.temperature,
                "avg_logprob": segment.avg_logprob,
                "compression_ratio": segment.compression_ratio,
                "no_speech_prob": segment.no_speech_prob,
            }
            for segment in transcript.segments
        ],
    }
    words = [word for segment in transcript.segments for word in segment.words or ()]
    if words:
        body["words"] = [
            {"word": word.word.strip(), "start": word.start, "end": word.end} for word in words
        ]
    return body, "application/json"


FORMATS: dict[str, Callable[[Transcript], tuple[dict[str, Any] | str, str]]] = {
    "json": _json,
    "text": _text,
    "srt": _srt,
    "verbose_json": _verbose_json,
    "vtt": _vtt,
}


def render(transcript: Transcript, kind: str) -> tuple[dict[str, Any] | str, str]:
    """The body and media type of a response; ``kind`` is one of ``FORMATS``."""
    return FORMATS[kind](transcript)
