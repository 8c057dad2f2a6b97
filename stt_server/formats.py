"""OpenAI's response formats of a transcription."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from stt_server.recognizer import Info, Segment


@dataclass(frozen=True)
class Transcript:
    """The result of a request; ``words``: whether the request asked for the times of words."""

    task: str
    info: Info
    segments: Sequence[Segment]
    words: bool = False

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(segment.text for segment in self.segments).strip()

    @property
    def known(self) -> dict[str, Any]:
        """What the engine knows of the whole; ``language`` is a code, as in the request."""
        told = {
            "language": self.info.language,
            "language_probability": self.info.language_probability,
        }
        return {name: value for name, value in told.items() if value is not None}


def clock(seconds: float, separator: str) -> str:
    """``HH:MM:SS`` and milliseconds after ``separator``; hours may exceed 99."""
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest // 1000:02}{separator}{rest % 1000:03}"


def srt(transcript: Transcript) -> str:
    """SubRip: numbered cues."""
    cues = enumerate(_cues(transcript, ","), start=1)
    return "\n".join(f"{number}\n{cue}" for number, cue in cues)


def vtt(transcript: Transcript) -> str:
    """WebVTT: its text escapes what would be markup."""
    cues = _cues(transcript, ".", lambda text: html.escape(text, quote=False))
    return "\n".join(["WEBVTT\n", *cues])


def _cues(
    transcript: Transcript, separator: str, escape: Callable[[str], str] = str
) -> Iterator[str]:
    for segment in transcript.segments:
        times = f"{clock(segment.start, separator)} --> {clock(segment.end, separator)}"
        # An arrow or an empty line would end the cue's text.
        text = " ".join(segment.text.split()).replace("-->", "->")
        yield f"{times}\n{escape(text)}\n"


def verbose_json(transcript: Transcript) -> dict[str, Any]:
    """Everything that the engine says of its text."""
    body: dict[str, Any] = {
        "task": transcript.task,
        **transcript.known,
        "duration": transcript.info.duration,
        "text": transcript.text,
        "segments": [
            {
                "id": number,
                "start": segment.start,
                "end": segment.end,
                "text": segment.text,
                **segment.details,
            }
            for number, segment in enumerate(transcript.segments, start=1)
        ],
    }
    if transcript.words:
        body["words"] = [
            {"word": word.word, "start": word.start, "end": word.end}
            for segment in transcript.segments
            for word in segment.words
        ]
    return body


#: The body of each format and its media type.
FORMATS: dict[str, tuple[Callable[[Transcript], dict[str, Any] | str], str]] = {
    "json": (lambda transcript: {"text": transcript.text}, "application/json"),
    "text": (lambda transcript: transcript.text + "\n", "text/plain"),
    "srt": (srt, "application/x-subrip"),
    "verbose_json": (verbose_json, "application/json"),
    "vtt": (vtt, "text/vtt"),
}
