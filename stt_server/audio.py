"""Uploaded files as the samples that engines take, a slice at a time."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import BinaryIO

import av
import av.error
import numpy as np
import numpy.typing as npt
from av.audio.codeccontext import AudioCodecContext
from av.container import InputContainer

Samples = npt.NDArray[np.float32]

SAMPLING_RATE = 16000
#: Seconds that an engine gets at once: faster-whisper takes about 1 MB for each.
SLICE = 120
#: A slice ends at the quietest moment of its last seconds, and is never shorter than these.
SEARCH = 15
#: Seconds over which the quietest moment is measured, and the step in which it is looked for.
_PAUSE, _STEP = 0.3, 0.02
#: What FFmpeg may take a file for. Others (sdp, hls, concat …) open sockets and further files.
CONTAINERS = (
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,eac3,flac,flv,matroska,mov,mp3,mpeg,mpegts,ogg,tta,"
    "w64,wav,webm,wv"
)
#: Hz and bytes. A few kB at a rate of a few Hz are hours of sound, all in one packet.
_LEAST_RATE, _MOST_PACKET = 4000, 4 << 20
#: Samples of a channel that come out of a packet: silence may be packed a thousand to a byte.
_MOST_SAMPLES = 1 << 21
_UNDECODABLE = "The file is not audio that can be decoded."


class AudioError(Exception):
    """The file is not audio that can be transcribed."""


class StoppedError(Exception):
    """The client has left; nobody wants the rest."""


@dataclass(frozen=True)
class Slice:
    """A part of the recording: its samples, where it starts (s), and whether it is the last."""

    samples: Samples
    start: float
    last: bool


def slices(
    file: BinaryIO, minutes: int, stopped: Callable[[], bool]
) -> Generator[Slice, None, None]:
    """The first audio stream of ``file``, mono, at ``SAMPLING_RATE``, never all of it in memory.

    Raises:
        AudioError: there is none, or it is longer than ``minutes``. Where the file itself tells
            its length, before the first slice.
        StoppedError: ``stopped`` has become true.
    """
    most, size, search = (SAMPLING_RATE * seconds for seconds in (60 * minutes, SLICE, SEARCH))
    first = 0
    parts: list[Samples] = []
    length = 0
    for part in _decode(file, stopped):
        parts.append(part)
        length += len(part)
        if length > most:
            raise _too_long(minutes)
        if length - first < size + search:
            continue
        waiting = _joined(parts)
        if not first and _declared(file, stopped) > most:
            raise _too_long(minutes)
        while len(waiting) >= size + search:
            end = size - search + _quietest(waiting[size - search : size])
            yield Slice(waiting[:end], first / SAMPLING_RATE, last=False)
            first += end
            waiting = waiting[end:].copy()
        parts = [waiting]
    if not length:
        raise AudioError("The file has no sound.")
    yield Slice(_joined(parts), first / SAMPLING_RATE, last=True)


def _joined(parts: list[Samples]) -> Samples:
    """One array; files of floating point may hold what is no number."""
    return np.nan_to_num(np.concatenate(parts), copy=False, nan=0.0, posinf=1.0, neginf=-1.0)


def _too_long(minutes: int) -> AudioError:
    return AudioError(f"The audio is longer than {minutes} minutes, the limit of this service.")


def _quietest(samples: Samples) -> int:
    """The middle of the quietest moment."""
    step, steps = round(_STEP * SAMPLING_RATE), round(_PAUSE / _STEP)
    power = np.square(samples[: len(samples) // step * step].reshape(-1, step)).mean(axis=1)
    loudness = np.convolve(power, np.ones(steps), "valid")
    return (int(loudness.argmin()) + steps // 2) * step


def _open(file: BinaryIO) -> InputContainer:
    file.seek(0)
    container = av.open(
        file, "r", metadata_errors="ignore", options={"format_whitelist": CONTAINERS}
    )
    if not container.streams.audio:
        container.close()
        raise AudioError("The file has no audio.")
    codec: AudioCodecContext | None = container.streams.audio[0].codec_context
    if codec is None:  # none is known of the name that the file gives
        container.close()
        raise AudioError(_UNDECODABLE)
    codec.options = {"max_samples": str(_MOST_SAMPLES)}
    return container


def _declared(file: BinaryIO, stopped: Callable[[], bool]) -> float:
    """How many samples its packets say that they hold; a file may lie, or not say."""
    place, samples = file.tell(), 0.0
    try:
        with _open(file) as container:
            stream = container.streams.audio[0]
            for packet in container.demux(stream):
                if stopped():
                    raise StoppedError
                if packet.duration and stream.time_base:
                    samples += float(packet.duration * stream.time_base) * SAMPLING_RATE
    except (av.error.FFmpegError, ValueError):
        return 0  # it is decoded as far as it goes
    finally:
        file.seek(place)
    return samples


def _decode(file: BinaryIO, stopped: Callable[[], bool]) -> Iterator[Samples]:
    """The samples, as they come.

    Raises:
        AudioError: it cannot be decoded.
        StoppedError: nobody wants them.
    """
    resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLING_RATE)
    try:
        with _open(file) as container:
            for frame in itertools.chain(_frames(container, stopped), [None]):
                for part in resampler.resample(frame):
                    yield part.to_ndarray()[0]
    except (av.error.FFmpegError, ValueError) as error:
        raise AudioError(_UNDECODABLE) from error


def _frames(container: InputContainer, stopped: Callable[[], bool]) -> Iterator[av.AudioFrame]:
    """The frames of the first audio stream."""
    for packet in container.demux(audio=0):
        if stopped():
            raise StoppedError
        if packet.size > _MOST_PACKET:
            raise AudioError(f"{_UNDECODABLE[:-1]}: a packet is too large.")
        try:
            frames = packet.decode()
        except av.error.InvalidDataError:
            continue  # a damaged packet has none; the rest of the file still counts
        for frame in frames:
            if frame.sample_rate < _LEAST_RATE:
                raise AudioError(
                    f"The audio has {frame.sample_rate} samples a second, too few for speech; at "
                    f"least {_LEAST_RATE} are needed."
                )
            frame.pts = None  # a gap in the clock is not an error
            yield frame
