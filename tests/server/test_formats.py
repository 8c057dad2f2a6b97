"""Subtitles, also as FFmpeg reads them."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import av
import pytest

if TYPE_CHECKING:
    from stt_server.formats import Transcript

CUES = [
    (0.0, 1.0, " Hello, world."),
    (1.0, 2.0004, " Salt & <b>pepper</b> --> both"),
    (59.9996, 3600.0, " two\n\nlines"),
    (360_000.5, 360_001.25, " ελληνικά"),
]


@pytest.fixture
def transcript() -> Transcript:
    return _transcript(CUES)


def _transcript(cues: list[tuple[float, float, str]]) -> Transcript:
    from stt_server.formats import Transcript
    from stt_server.recognizer import Info, Segment

    return Transcript("transcribe", Info(1.0), [Segment(*cue) for cue in cues])


def test_srt(transcript: Transcript) -> None:
    from stt_server.formats import srt

    assert srt(transcript) == (
        "1\n00:00:00,000 --> 00:00:01,000\nHello, world.\n\n"
        "2\n00:00:01,000 --> 00:00:02,000\nSalt & <b>pepper</b> -> both\n\n"
        "3\n00:01:00,000 --> 01:00:00,000\ntwo lines\n\n"
        "4\n100:00:00,500 --> 100:00:01,250\nελληνικά\n"
    )


def test_vtt(transcript: Transcript) -> None:
    from stt_server.formats import vtt

    assert vtt(transcript) == (
        "WEBVTT\n\n"
        "00:00:00.000 --> 00:00:01.000\nHello, world.\n\n"
        "00:00:01.000 --> 00:00:02.000\nSalt &amp; &lt;b&gt;pepper&lt;/b&gt; -&gt; both\n\n"
        "00:01:00.000 --> 01:00:00.000\ntwo lines\n\n"
        "100:00:00.500 --> 100:00:01.250\nελληνικά\n"
    )


def test_nothing_was_said() -> None:
    from stt_server.formats import FORMATS

    nothing = _transcript([])
    bodies = {kind: FORMATS[kind][0](nothing) for kind in ("json", "text", "srt", "vtt")}
    assert bodies == {"json": {"text": ""}, "text": "\n", "srt": "", "vtt": "WEBVTT\n"}


@pytest.mark.parametrize("kind", ["srt", "vtt"])
def test_ffmpeg_reads_every_cue(transcript: Transcript, kind: str) -> None:
    from stt_server.formats import FORMATS

    body = FORMATS[kind][0](transcript)
    assert isinstance(body, str)
    form = {"srt": "srt", "vtt": "webvtt"}[kind]
    with av.open(io.BytesIO(body.encode()), "r", format=form) as file:
        read = [
            (packet.pts, packet.duration, bytes(packet).decode())
            for packet in file.demux(subtitles=0)
            if packet.size
        ]
    expected = [(0, 1000), (1000, 1000), (60_000, 3_540_000), (360_000_500, 750)]
    assert [(start, length) for start, length, _ in read] == expected
    assert [read[0][2], read[2][2], read[3][2]] == ["Hello, world.", "two lines", "ελληνικά"]
