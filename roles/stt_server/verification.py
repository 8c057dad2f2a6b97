"""How an STT service is known to work: which words it has to find, and when it gets requests."""

from __future__ import annotations

import wave
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from agent.drain import Drain
from agent.kinds.transcription import Transcription
from agent.kinds.upload import Upload
from declaration.settings import Settings
from declaration.source_files import digest
from declaration.step import Step
from declaration.topology import MachinePlan
from declaration.urls import stt_base_url, stt_url
from engines.service import SERVICE, EngineService, header_file
from roles.role import Context
from stack.declare import SttService
from stack.gateway import gateways_before

#: What the verification posts, where ``stt:check`` names nothing else, and its words.
RECORDING, WORDS = "recordings/one_two_three.wav", "one two three"
#: How much of the words may be wrong: one of three.
ERROR_RATE = 0.34


def recording_file(context: Context) -> str:
    """The file that has to be transcribed."""
    return context.settings.check.recording or RECORDING


def recording_step(context: Context, role: str, source: str = "") -> tuple[str, Step]:
    """Where the recording is in the machine, and the step that brings it.

    Each role has its own: what one takes away with itself stays there for the other. ``source`` is
    that of ``stt:check`` if it is empty.
    """
    source = source or recording_file(context)
    part = "recording" if source == recording_file(context) else "own-recording"
    place = f"/opt/incus-stt/recording-{role}-{digest(Path(source))}.wav"
    upload = Upload(place, directory=False)
    return place, Step(context.part(f"{role}/{part}"), upload, source=source)


def duration(recording: str) -> float:
    """The length of a WAV file, in seconds."""
    with wave.open(recording) as audio:
        seconds: float = audio.getnframes() / audio.getframerate()
    return round(seconds, 3)


def expected_words(settings: Settings, service: SttService | None) -> str:
    """What the recording has to come back as; empty: any words will do.

    ``service`` is None if it is somebody else's, whose model is not known.
    """
    if settings.check.words is not None:
        return settings.check.words
    known = service.model.known if service else None
    english = settings.language in ("", "en") and (known is None or "en" in known.languages)
    return WORDS if english and not settings.check.recording else ""


def common_words(settings: Settings, services: Sequence[SttService]) -> str:
    """The same where any of these may answer; any words will do where one of them may hear any."""
    words = [expected_words(settings, each) for each in services]
    return words[0] if words and all(words) else settings.check.words or ""


def transcription(
    context: Context, engine: EngineService, recording: str, source: str
) -> Transcription:
    """``recording`` is the place of the file ``source`` in the machine."""
    service = context.declaration.service_on(context.machine)
    return Transcription(
        url=stt_url(context.settings, context.machine),
        model=service.model.name,
        recording=recording,
        seconds=duration(source),
        header_file=header_file(context.settings),
        unit=engine.service.unit,
        engine=context.settings.engine,
        device=service.device,
        evidence=engine.evidence,
        words=expected_words(context.settings, service),
        error_rate=ERROR_RATE,
    )


def proof_of_change(context: Context, engine: EngineService) -> tuple[Transcription, Step] | None:
    """What a change has to transcribe, or the service before comes back; and its recording's step.

    Behind a gateway a restart costs nobody anything, and it is the whole verification. Else it is
    this project's own recording, and any words will do: it does not depend on ``stt:check``, whose
    change restarts nothing.
    """
    if context.declaration.engine.self_contained:
        return None
    whole = bool(gateways(context))
    source = recording_file(context) if whole else RECORDING
    place, recording = recording_step(context, SERVICE, source)
    # Inside the machine: another address of it restarts nothing.
    url = f"{stt_base_url(context.settings)}/v1"
    proof = replace(transcription(context, engine, place, source), url=url)
    return proof if whole else replace(proof, words="", error_rate=0.0), recording


def drain(context: Context, engine: EngineService) -> Drain | None:
    """How the server leaves the turn of its gateway.

    An engine of the operator's own may know nothing of it: then this is a pause, in which the
    gateway notices that the server before it is back.
    """
    if not gateways(context):
        return None
    return Drain(f"{stt_base_url(context.settings)}/ready")


def gateways(context: Context) -> list[MachinePlan]:
    """The gateways before this machine's STT server."""
    return gateways_before(context.settings, context.declaration.topology, context.machine)
