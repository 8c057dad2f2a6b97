"""The loaded model, and the HTTP routes on it."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import BinaryIO

import anyio
import anyio.to_thread
from starlette.applications import Starlette
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from stt_server.admission import Admission
from stt_server.audio import AudioError, StoppedError
from stt_server.clients import keep_queries_out
from stt_server.formats import FORMATS, Transcript
from stt_server.guard import (
    LARGEST_FIELD,
    MOST_FIELDS,
    MOST_FILES,
    NOT_UTF_8,
    Guard,
    RequestError,
    announced,
    on_error,
    require_form,
)
from stt_server.job import Job
from stt_server.ready import with_ready
from stt_server.recognizer import Options, load_recognizer, out_of_memory
from stt_server.settings import Settings

log = logging.getLogger("uvicorn.error")
_FULL = "The device's memory is full: another program holds it. Try again."


class Service:
    """The loaded model and the HTTP routes on it."""

    def __init__(self, settings: Settings) -> None:
        """Load the model.

        Raises:
            SettingsError: the model cannot be loaded, or does not know the language.
        """
        self.settings = settings
        self.recognizer = load_recognizer(settings)
        # One transcription at a time: the device is one. The others wait in line.
        self.turn = anyio.Lock()
        self.admission = Admission(settings.waiting, settings.upload_mb)
        #: Recordings of several slices that are not at their end; the model is unloaded after them.
        self.begun = 0
        self.used = time.monotonic()
        #: Since when it works on a slice; 0 where it does not.
        self.working_since = 0.0

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        """Unload the model once nobody has used it for ``STT_KEEP_ALIVE``."""
        async with anyio.create_task_group() as group:
            if self.settings.keep_alive >= 0:
                group.start_soon(self._unload_when_idle)
            yield
            group.cancel_scope.cancel()

    async def _unload_when_idle(self) -> None:
        while True:
            left = self.used + self.settings.keep_alive - time.monotonic()
            if left <= 0:
                with contextlib.suppress(RequestError):  # it is in the log; again in a second
                    await self.unload(idle=True)
            # A request can come at any time; it moves the moment by as much.
            await anyio.sleep(min(left, 5) if left > 0 else 1)

    async def unload(self, idle: bool = False) -> bool:
        """Give the device's memory back after the transcription that runs; whether there was any.

        With ``idle``, only where nobody has come in between.

        Raises:
            RequestError: the engine does not let go of the model.
        """
        async with self._turn_for_all():
            if not self.recognizer.loaded:
                return False
            if idle and time.monotonic() < self.used + self.settings.keep_alive:
                return False
            try:
                await anyio.to_thread.run_sync(self.recognizer.unload)
            except TimeoutError as error:
                log.error("the model cannot be unloaded: %s", error)
                raise RequestError(503, "The model cannot be unloaded now. Try again.") from error
            log.info("the model is unloaded%s", ": it was idle" if idle else "")
            return True

    @asynccontextmanager
    async def _turn_for_all(self) -> AsyncIterator[None]:
        """The turn, and no recording is between two of its own."""
        while True:
            async with self.turn:
                if not self.begun:
                    yield
                    return
            await anyio.sleep(0.1)

    def _load(self) -> None:
        """Bring the model back, in a worker thread and in turn."""
        if self.recognizer.loaded:
            return
        began = time.perf_counter()
        try:
            self.recognizer.load()
        except Exception as error:
            log.error("the model cannot be loaded: %s", error)
            message = _FULL if out_of_memory(error) else "The model cannot be loaded. Try again."
            raise RequestError(503, message) from error
        log.info("the model is loaded again after %.2f s", time.perf_counter() - began)

    async def health(self, request: Request) -> Response:
        """What really runs: device and compute type as the loaded model has them."""
        recognizer, since = self.recognizer, self.working_since
        return JSONResponse(
            {
                "status": "ok",
                "engine": self.settings.engine,
                "model": self.settings.model_name,
                "loaded": recognizer.loaded,
                "device": recognizer.device,
                "compute_type": recognizer.compute_type,
                "language": self.settings.language,
                "keep_alive": self.settings.keep_alive,
                "working": round(time.monotonic() - since, 1) if since else 0.0,
                "version": recognizer.version,
            }
        )

    async def running(self, request: Request) -> Response:
        """Speaches' ``/api/ps``: which model holds the device's memory."""
        loaded = self.recognizer.loaded
        return JSONResponse({"models": [self.settings.model_name] if loaded else []})

    async def load_or_unload(self, request: Request) -> Response:
        """Speaches' ``POST`` and ``DELETE /api/ps/MODEL``; an unload waits for its turn."""
        name = request.path_params["name"]
        if name not in self.settings.names:
            raise self._no_model(name)
        if request.method == "DELETE":
            there = await self.unload()
            status, said = (200, "unloaded") if there else (404, "not loaded")
        else:
            async with self.turn:
                there = self.recognizer.loaded
                await anyio.to_thread.run_sync(self._load)
                self.used = time.monotonic()
            status, said = (409, "already loaded") if there else (201, "loaded")
        return JSONResponse({"detail": f"Model {name!r} is {said}."}, status)

    async def models(self, request: Request) -> Response:
        """OpenAI's list of models, or one of it."""
        wanted = request.path_params.get("name")
        entries = {
            name: {"id": name, "object": "model", "created": 0, "owned_by": "incus-stt"}
            for name in self.settings.names
        }
        if wanted is None:
            return JSONResponse({"object": "list", "data": list(entries.values())})
        if wanted not in entries:
            raise self._no_model(wanted)
        return JSONResponse(entries[wanted])

    async def transcriptions(self, request: Request) -> Response:
        """OpenAI's POST /v1/audio/transcriptions."""
        return await self._answer(request, "transcribe")

    async def translations(self, request: Request) -> Response:
        """OpenAI's POST /v1/audio/translations."""
        return await self._answer(request, "translate")

    def _no_model(self, name: str) -> RequestError:
        served = self.settings.model_name
        return RequestError(404, f"The model {name!r} is not served here; {served!r} is.", "model")

    def _options(self, form: FormData, task: str) -> Options:
        """What the engine is asked for; every field of the request is checked."""
        if task not in self.recognizer.tasks:
            engine = self.settings.engine
            raise RequestError(400, f"The engine {engine} does not translate.", "model")
        model = form.get("model")
        if not isinstance(model, str) or not model:
            raise RequestError(400, "The field model is missing.", "model")
        if model not in self.settings.names:
            raise self._no_model(model)
        language = str(form.get("language") or "").lower() or self.settings.language or None
        languages = self.recognizer.languages
        if language and languages is not None and language not in languages:
            known = ", ".join(languages)
            raise RequestError(400, f"This model knows: {known}; not {language!r}.", "language")
        try:
            temperature = float(str(form.get("temperature") or 0))
        except ValueError:
            temperature = -1.0
        if not 0 <= temperature <= 1:
            raise RequestError(400, "The temperature is a number from 0 to 1.", "temperature")
        field = "timestamp_granularities[]"
        grains = {str(grain) for grain in form.getlist(field)}
        if not grains <= {"segment", "word"}:
            raise RequestError(400, "Granularities are segment and word.", field)
        return Options(
            task,
            language,
            prompt=str(form.get("prompt") or "") or None,
            temperature=temperature,
            words="word" in grains,
        )

    async def _answer(self, request: Request, task: str) -> Response:
        size = announced(dict(request.scope["headers"]))
        with self.admission.admit(request.receive, size) as receive:
            request = Request(request.scope, receive)
            async with _form(request) as form:
                options = self._options(form, task)
                kind = str(form.get("response_format") or "json")
                if kind not in FORMATS:
                    raise RequestError(400, f"Formats are {', '.join(FORMATS)}.", "response_format")
                upload = form.get("file")
                if not isinstance(upload, UploadFile):
                    raise RequestError(400, "The field file is missing.", "file")
                transcript = await self._in_turn(request, upload.file, options)
        if str(form.get("stream") or "").lower() in ("true", "1"):
            return StreamingResponse(_events(transcript), media_type="text/event-stream")
        render, media_type = FORMATS[kind]
        body = render(transcript)
        if isinstance(body, str):
            return PlainTextResponse(body, media_type=media_type)
        return JSONResponse(body)

    async def _in_turn(self, request: Request, file: BinaryIO, options: Options) -> Transcript:
        """Wait in line for each slice; leave the line, or stop, when the client disconnects."""
        gone = threading.Event()
        options = replace(options, stopped=gone.is_set)
        job = Job(file, options, self.settings.audio_minutes)
        transcript, begun = None, False

        async def watch() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            gone.set()
            group.cancel_scope.cancel()

        try:
            async with anyio.create_task_group() as group:
                group.start_soon(watch)
                while not job.done:
                    async with self.turn:
                        await anyio.to_thread.run_sync(self._transcribe, job)
                        if not (begun or job.done):
                            self.begun += 1
                            begun = True
                transcript = job.transcript
                group.cancel_scope.cancel()
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            self.begun -= begun
            job.close()
        if transcript is None:
            log.info("a client left before its transcription was done")
            raise ClientDisconnect
        return transcript

    def _transcribe(self, job: Job) -> None:
        """Decode and transcribe the next slice, in a worker thread. The text is never logged."""
        began = self.used = self.working_since = time.monotonic()
        try:
            job.decode()
            self._load()
            job.transcribe(self.recognizer)
        except StoppedError:
            job.done = True
        except AudioError as error:
            raise RequestError(400, str(error), "file") from error
        except Exception as error:
            if not out_of_memory(error):
                raise
            log.error("no transcription: %s", error)
            raise RequestError(503, _FULL) from error
        finally:
            self.used, self.working_since = time.monotonic(), 0.0
            job.took += self.used - began
        if job.transcript:
            info = job.transcript.info
            log.info(
                "%.2f s of audio in %.2f s, real-time factor %.3f, language %s",
                info.duration,
                job.took,
                job.took / info.duration,
                info.language or "unknown",
            )


@asynccontextmanager
async def _form(request: Request) -> AsyncIterator[FormData]:
    """The fields of a request; its file is on the disk where it is not small.

    Raises:
        RequestError: there is no form, or no room for the file.
    """
    require_form(request.headers.get("content-type", ""))
    try:
        form = await request.form(
            max_files=MOST_FILES, max_fields=MOST_FIELDS, max_part_size=LARGEST_FIELD
        )
    except UnicodeError as error:
        raise RequestError(400, NOT_UTF_8) from error
    except OSError as error:
        log.error("an upload cannot be kept: %s", error)
        raise RequestError(503, "The upload cannot be kept now. Try again.") from error
    try:
        yield form
    finally:
        await form.close()


async def _events(transcript: Transcript) -> AsyncIterator[str]:
    """OpenAI's server-sent events of a transcription."""
    for segment in transcript.segments:
        yield _event({"type": "transcript.text.delta", "delta": segment.text})
    yield _event({"type": "transcript.text.done", "text": transcript.text})


def _event(data: Mapping[str, str]) -> str:
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n"


def create_app(service: Service) -> ASGIApp:
    """The application around a loaded model."""
    errors = (RequestError, HTTPException, ClientDisconnect, Exception)
    app = Starlette(
        routes=[
            Route("/health", service.health),
            Route("/v1/models", service.models),
            Route("/v1/models/{name:path}", service.models),
            Route("/api/ps", service.running),
            Route("/api/ps/{name:path}", service.load_or_unload, methods=["POST", "DELETE"]),
            Route("/v1/audio/transcriptions", service.transcriptions, methods=["POST"]),
            Route("/v1/audio/translations", service.translations, methods=["POST"]),
        ],
        exception_handlers=dict.fromkeys(errors, on_error),
        lifespan=service.lifespan,
    )
    keep_queries_out()
    return with_ready(Guard(app, service.settings), lambda: service.admission.requests)
