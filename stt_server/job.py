"""One recording on its way through the engine, a slice in each turn."""

from __future__ import annotations

from dataclasses import replace
from typing import BinaryIO

from stt_server.audio import Slice, StoppedError, slices
from stt_server.formats import Transcript
from stt_server.recognizer import Info, Options, Recognizer, Segment


class Job:
    """A recording and what was heard of it so far.

    ``transcript`` is there once ``done``, unless the client has left. ``took`` is in seconds.
    """

    def __init__(self, file: BinaryIO, options: Options, minutes: int) -> None:
        self.options = options
        self.done = False
        self.transcript: Transcript | None = None
        self.took = 0.0
        self._slices = slices(file, minutes, options.stopped)
        self._next: Slice | None = None
        self._segments: list[Segment] = []
        self._info: Info | None = None

    def decode(self) -> None:
        """Have the next slice.

        Raises:
            AudioError: the file is not audio, or too long.
            StoppedError: the client has left.
        """
        self._next = next(self._slices)

    def transcribe(self, recognizer: Recognizer) -> None:
        """Transcribe the slice.

        Raises:
            StoppedError: the client has left.
        """
        part = self._next
        if part is None:
            raise RuntimeError("there is no slice")
        self._next = None
        found, info = recognizer.transcribe(part.samples, self._known())
        heard = []
        for segment in found:
            if self.options.stopped():
                raise StoppedError
            heard.append(_moved(segment, part.start) if part.start else segment)
        duration = part.start + info.duration
        if (heard and not self._segments) or self._info is None:
            self._info = info
        self._segments += heard
        if part.last:
            known = replace(self._info, duration=duration)
            options = self.options
            self.transcript = Transcript(options.task, known, self._segments, options.words)
            self.done = True

    def _known(self) -> Options:
        """The request, with the language once it was heard.

        The text before is not given to the next slice: what was misheard would be said again.
        """
        if not self._segments or self._info is None or self.options.language:
            return self.options
        return replace(self.options, language=self._info.language)

    def close(self) -> None:
        """Leave the file."""
        self._slices.close()


def _moved(segment: Segment, seconds: float) -> Segment:
    """A segment of a slice as one of the whole recording."""
    details = dict(segment.details)
    if "seek" in details:  # in hundredths of a second
        details["seek"] += round(seconds * 100)
    return Segment(
        segment.start + seconds,
        segment.end + seconds,
        segment.text,
        [
            replace(word, start=word.start + seconds, end=word.end + seconds)
            for word in segment.words
        ],
        details,
    )
