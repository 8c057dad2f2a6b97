"""An OpenAI-compatible speech-to-text server on faster-whisper: one model, loaded at start.

Every setting is an environment variable (``settings.py``); one that is unknown or cannot take
effect is an error at start, never ignored.
"""

from __future__ import annotations

import hmac
import json
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Mapping
from importlib.metadata import version
from typing import Any, BinaryIO

import anyio
import anyio.to_thread
import faster_whisper
import numpy as np
import uvicorn
from audio import SAMPLING_RATE, AudioError, decode
from formats import FORMATS, Transcript
from settings import Settings, SettingsError, read_settings
from starlette.applications import Starlette
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger("uvicorn.error")

#: sysexits.h EX_CONFIG: systemd shows it as CONFIG.
EX_CONFIG = 78
#: How long SIGTERM lets a running transcription end; then uvicorn lets the signal end the process.
GRACE_SECONDS = 5
#: What Whisper tries in turn where its own confidence is low; the meaning of OpenAI's 0.
TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


class RequestError(Exception):
    """A request that cannot be answered; it goes out in OpenAI's form."""

    def __init__(self, status: int, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.param = status, message, param


class Service:
    """The loaded model and the HTTP routes on it."""

    def __init__(self, settings: Settings) -> None:
        """Load the model.

        Raises:
            SettingsError: the model cannot be loaded, or does not know the language.
        """
        self.settings = settings
        try:
            self.model = faster_whisper.WhisperModel(
                str(settings.model_dir),
                device=settings.device,
                compute_type=settings.compute_type,
                # CTranslate2's own 0 is four at most.
                cpu_threads=settings.cpu_threads or len(os.sched_getaffinity(0)),
                local_files_only=True,
            )
            if settings.device == "cuda":
                # cuBLAS is loaded at the first use: where it is missing, now is the time to say so.
                list(self.model.transcribe(np.zeros(SAMPLING_RATE, np.float32), language="en")[0])
        except Exception as error:
            raise SettingsError(
                f"STT_MODEL_DIR is {str(settings.model_dir)!r}, which does not run: {error}"
            ) from error
        self.languages = ["en"]
        if self.model.model.is_multilingual:
            # Older models lack the newest language.
            token = self.model.hf_tokenizer.token_to_id
            self.languages = [
                code for code in self.model.supported_languages if token(f"<|{code}|>") is not None
            ]
        if settings.language and settings.language not in self.languages:
            raise SettingsError(
                f"STT_LANGUAGE is {settings.language!r}; this model knows: "
                f"{', '.join(self.languages)}"
            )
        # One transcription at a time: the device is one. The others wait in line.
        self.turn = anyio.Lock()

    async def health(self, request: Request) -> Response:
        """What really runs: device and compute type as the loaded model has them."""
        loaded = self.model.model
        return JSONResponse(
            {
                "status": "ok",
                "model": self.settings.model_name,
                "device": loaded.device,
                "compute_type": loaded.compute_type,
                "language": self.settings.language,
                "version": version("faster-whisper"),
            }
        )

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

    def _options(self, form: FormData, task: str) -> dict[str, Any]:
        """What faster-whisper is asked for; every field of the request is checked."""
        model = form.get("model")
        if not isinstance(model, str) or not model:
            raise RequestError(400, "The field model is missing.", "model")
        if model not in self.settings.names:
            raise self._no_model(model)
        language = str(form.get("language") or "").lower() or self.settings.language or None
        if language and language not in self.languages:
            known = ", ".join(self.languages)
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
        return {
            "task": task,
            "language": language,
            "initial_prompt": str(form.get("prompt") or "") or None,
            "temperature": temperature or TEMPERATURES,
            "word_timestamps": "word" in grains,
            # Whisper hears words in silence, hum and noise.
            "vad_filter": True,
        }

    async def _answer(self, request: Request, task: str) -> Response:
        async with request.form() as form:
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

    async def _in_turn(
        self, request: Request, file: BinaryIO, options: Mapping[str, Any]
    ) -> Transcript:
        """Wait in line, then transcribe; leave the line, or stop, where the client has gone."""
        gone = threading.Event()
        transcript = None

        async def watch() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            gone.set()
            group.cancel_scope.cancel()

        try:
            async with anyio.create_task_group() as group:
                group.start_soon(watch)
                async with self.turn:
                    transcript = await anyio.to_thread.run_sync(
                        self._transcribe, file, options, gone
                    )
                group.cancel_scope.cancel()
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        if transcript is None:
            log.info("a client left before its transcription was done")
            raise ClientDisconnect
        return transcript

    def _transcribe(
        self, file: BinaryIO, options: Mapping[str, Any], gone: threading.Event
    ) -> Transcript | None:
        """Decode and transcribe, in a worker thread. The text is never logged."""
        began = time.perf_counter()
        try:
            samples = decode(file)
        except AudioError as error:
            raise RequestError(400, str(error), "file") from error
        found, info = self.model.transcribe(samples, **options)
        segments = []
        for segment in found:
            if gone.is_set():
                return None
            segments.append(segment)
        took = time.perf_counter() - began
        log.info(
            "%.2f s of audio in %.2f s, real-time factor %.3f, language %s",
            info.duration,
            took,
            took / info.duration,
            info.language,
        )
        return Transcript(str(options["task"]), info, segments, options["word_timestamps"])


async def _events(transcript: Transcript) -> AsyncIterator[str]:
    """OpenAI's server-sent events of a transcription."""
    for segment in transcript.segments:
        yield _event({"type": "transcript.text.delta", "delta": segment.text})
    yield _event({"type": "transcript.text.done", "text": transcript.text})


def _event(data: Mapping[str, str]) -> str:
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n"


class Guard:
    """The key, and the limit of an upload, before any of a body is kept."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.key = settings.api_key.encode()
        self.limit = settings.max_upload_mb << 20

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass on with a counted body."""
        if scope["type"] != "http" or scope["path"] == "/health":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        right = scheme.lower() == b"bearer" and hmac.compare_digest(given.strip(), self.key)
        if self.key and not right:
            message = "The API key is missing or wrong. Send it as: Authorization: Bearer KEY."
            await error_response(401, message)(scope, receive, send)
            return
        too_large = f"The upload is larger than {self.limit >> 20} MiB."
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self.limit:
            await error_response(413, too_large, "file")(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.limit:
                raise RequestError(413, too_large, "file")
            return message

        await self.app(scope, counted, send)


def error_response(status: int, message: str, param: str | None = None) -> JSONResponse:
    """An error in OpenAI's form."""
    codes = {(401, None): "invalid_api_key", (404, "model"): "model_not_found"}
    error = {
        "message": message,
        "type": "server_error" if status >= 500 else "invalid_request_error",
        "param": param,
        "code": codes.get((status, param)),
    }
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
    return JSONResponse({"error": error}, status, headers=headers)


async def _on_error(request: Request, error: Exception) -> Response:
    """Every error that leaves a route."""
    if isinstance(error, RequestError):
        return error_response(error.status, error.message, error.param)
    if isinstance(error, HTTPException):
        message = f"{error.detail}: {request.method} {request.url.path}"
        return error_response(error.status_code, message)
    if isinstance(error, ClientDisconnect):
        return Response(status_code=499)  # nobody reads it
    return error_response(500, f"The transcription failed: {type(error).__name__}.")


def create_app(service: Service) -> ASGIApp:
    """The application around a loaded model."""
    errors = (RequestError, HTTPException, ClientDisconnect, Exception)
    app = Starlette(
        routes=[
            Route("/health", service.health),
            Route("/v1/models", service.models),
            Route("/v1/models/{name:path}", service.models),
            Route("/v1/audio/transcriptions", service.transcriptions, methods=["POST"]),
            Route("/v1/audio/translations", service.translations, methods=["POST"]),
        ],
        exception_handlers=dict.fromkeys(errors, _on_error),
    )
    return Guard(app, service.settings)


class Server(uvicorn.Server):
    """Uvicorn that tells systemd when it listens."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then say so."""
        await super().startup(sockets)
        if self.started:
            notify("READY=1")


def notify(state: str) -> None:
    """Tell systemd (sd_notify(3)); without systemd, nobody."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.connect("\0" + address[1:] if address.startswith("@") else address)
            channel.send(state.encode())


def main() -> int:
    """Serve until SIGTERM. Returns the exit status."""
    try:
        settings = read_settings(os.environ)
        service = Service(settings)
    except SettingsError as error:
        print(f"stt_server: {error}.", file=sys.stderr)
        return EX_CONFIG
    config = uvicorn.Config(
        create_app(service),
        host=settings.host,
        port=settings.port,
        log_level="info",
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    Server(config).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
