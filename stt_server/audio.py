"""Uploaded files as the samples that engines take."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import BinaryIO

import av
import av.error
import numpy as np
import numpy.typing as npt
from av.container import InputContainer

SAMPLING_RATE = 16000
#: A small file can hold days of sound, and faster-whisper takes about 1 MB a second of it.
MAX_SECONDS = 2 * 3600
#: What FFmpeg may take a file for. Others (sdp, hls, concat …) open sockets and further files.
CONTAINERS = (
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,eac3,flac,flv,matroska,mov,mp3,mpeg,mpegts,ogg,tta,"
    "w64,wav,webm,wv"
)


class AudioError(Exception):
    """The file is not audio that can be transcribed."""


def decode(file: BinaryIO) -> npt.NDArray[np.float32]:
    """The first audio stream of ``file``, mono, at ``SAMPLING_RATE``.

    Raises:
        AudioError: there is none, or it is too long.
    """
    parts = []
    length = 0
    resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLING_RATE)
    try:
        with av.open(
            file, "r", metadata_errors="ignore", options={"format_whitelist": CONTAINERS}
        ) as container:
            if not container.streams.audio:
                raise AudioError("The file has no audio.")
            for frame in itertools.chain(_frames(container), [None]):
                for part in resampler.resample(frame):
                    parts.append(part.to_ndarray()[0])
                    length += part.samples
                if length > MAX_SECONDS * SAMPLING_RATE:
                    raise AudioError(f"The audio is longer than {MAX_SECONDS // 3600} hours.")
    except (av.error.FFmpegError, ValueError) as error:
        raise AudioError("The file is not audio that can be decoded.") from error
    if not length:
        raise AudioError("The file has no sound.")
    return np.concatenate(parts)


def _frames(container: InputContainer) -> Iterator[av.AudioFrame]:
    """The frames of the first audio stream."""
    for packet in container.demux(audio=0):
        try:
            frames = packet.decode()
        except av.error.InvalidDataError:
            continue  # a damaged packet has none; the rest of the file still counts
        for frame in frames:
            frame.pts = None  # a gap in the clock is not an error
            yield frame
