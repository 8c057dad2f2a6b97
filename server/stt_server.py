"""An OpenAI-compatible speech-to-text server on faster-whisper: one model, loaded at start.

Every setting is an environment variable (``Settings``); one that is unknown or cannot take effect
is an error at start, never ignored.
"""

from __future__ import annotations

import hmac
import json
import logging
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO

import anyio
import av.error
import ctranslate2
import faster_whisper
import uvicorn
from faster_whisper.tokenizer import _LANGUAGE_CODES
from formats import FORMATS, Transcript, render
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
SAMPLING_RATE = 16000
#: What Whisper tries in turn where its own confidence is low; the meaning of OpenAI's 0.
TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


class SettingsError(Exception):
    """A setting is missing, unknown, or cannot take effect."""


@dataclass(frozen=True)
class Settings:
    """The environment.

    ``model_name`` and ``aliases`` are what clients may send as ``model``; ``language`` is used
    where a request names none (empty: detect); ``cpu_threads`` 0: all; ``max_upload_mb`` in MiB.
    """

    host: str
    port: int
    model_dir: Path
    model_name: str
    aliases: tuple[str, ...]
    device: str
    compute_type: str
    language: str
    cpu_threads: int
    max_upload_mb: int
    api_key: str

    @property
    def names(self) -> tuple[str, ...]:
        """Every name of the model, its own first."""
        return tuple(dict.fromkeys((self.model_name, *self.aliases)))


DEFAULTS = {
    "STT_HOST": "127.0.0.1",
    "STT_PORT": "8000",
    "STT_MODEL_DIR": "",
    "STT_MODEL_NAME": "",
    "STT_MODEL_ALIASES": "[]",
    "STT_DEVICE": "cpu",
    "STT_COMPUTE_TYPE": "",
    "STT_LANGUAGE": "",
    "STT_CPU_THREADS": "0",
    "STT_MAX_UPLOAD_MB": "500",
    "STT_API_KEY_FILE": "",
}


def read_settings(environment: Mapping[str, str]) -> Settings:
    """The settings of ``environment``.

    Raises:
        SettingsError: naming the variable, its value, and what is allowed.
    """
    values = {name: environment.get(name, default) for name, default in DEFAULTS.items()}
    for name in environment:
        if name.startswith("STT_") and name not in DEFAULTS:
            raise SettingsError(f"{name} is unknown. Known: {', '.join(DEFAULTS)}")
    for name in ("STT_MODEL_DIR", "STT_MODEL_NAME", "STT_COMPUTE_TYPE"):
        if not values[name]:
            raise SettingsError(f"{name} is not set")
    device, compute_type = values["STT_DEVICE"], values["STT_COMPUTE_TYPE"]
    if device not in ("cpu", "cuda"):
        raise SettingsError(f"STT_DEVICE is {device!r}; allowed: cpu, cuda")
    try:
        supported = ctranslate2.get_supported_compute_types(device)
    except (RuntimeError, ValueError) as error:
        raise SettingsError(
            f"STT_DEVICE is {device!r}, which does not work here: {error}"
        ) from error
    if compute_type not in supported:
        # CTranslate2 would take another one in silence.
        raise SettingsError(
            f"STT_COMPUTE_TYPE is {compute_type!r}, which this {device} cannot run; "
            f"allowed: {', '.join(sorted(supported))}"
        )
    language = values["STT_LANGUAGE"]
    if language and language not in _LANGUAGE_CODES:
        raise SettingsError(f"STT_LANGUAGE is {language!r}, which is no language code of Whisper")
    model_dir = Path(values["STT_MODEL_DIR"])
    if not (model_dir / "model.bin").is_file():
        raise SettingsError(f"STT_MODEL_DIR is {str(model_dir)!r}, which holds no model.bin")
    return Settings(
        host=values["STT_HOST"],
        port=_number(values, "STT_PORT", 0, 65535),
        model_dir=model_dir,
        model_name=values["STT_MODEL_NAME"],
        aliases=_names(values["STT_MODEL_ALIASES"]),
        device=device,
        compute_type=compute_type,
        language=language,
        cpu_threads=_number(values, "STT_CPU_THREADS", 0, 1024),
        max_upload_mb=_number(values, "STT_MAX_UPLOAD_MB", 1, 100_000),
        api_key=_key(values["STT_API_KEY_FILE"]),
    )


def _number(values: Mapping[str, str], name: str, least: int, most: int) -> int:
    text = values[name]
    if not (text.isascii() and text.isdigit() and least <= int(text) <= most):
        raise SettingsError(f"{name} is {text!r}; allowed: {least} to {most}")
    return int(text)


def _names(text: str) -> tuple[str, ...]:
    try:
        names = json.loads(text)
    except ValueError:
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise SettingsError(f"STT_MODEL_ALIASES is {text!r}; allowed: a JSON list of names")
    return tuple(names)


def _key(file: str) -> str:
    if not file:
        return ""
    try:
        key = Path(file).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"STT_API_KEY_FILE is {file!r}, which cannot be read: {error}"
        ) from error
    if not key:
        raise SettingsError(f"STT_API_KEY_FILE is {file!r}, which is empty")
    return key


def refuse(status: int, message: str, param: str | None = None) -> HTTPException:
    """An error of the client's, to be raised; it goes out in OpenAI's form."""
    return HTTPException(status, detail={"message": message, "param": param})  # type: ignore[arg-type]  # any JSON


class Service:
    """The loaded model and the HTTP routes on it."""

    def __init__(self, settings: Settings) -> None:
        """Load the model.

        Raises:
            SettingsError: the model cannot be loaded, or knows no language but English.
        """
        self.settings = settings
        try:
            self.model = faster_whisper.WhisperModel(
                str(settings.model_dir),
                device=settings.device,
                compute_type=settings.compute_type,
                cpu_threads=settings.cpu_threads,
                local_files_only=True,
            )
        except (RuntimeError, ValueError, OSError) as error:
            raise SettingsError(
                f"the model in STT_MODEL_DIR {str(settings.model_dir)!r} does not load: {error}"
            ) from error
        if not self.model.model.is_multilingual and settings.language not in ("", "en"):
            raise SettingsError(
                f"STT_LANGUAGE is {settings.language!r}, but this model knows English alone"
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
        entries = [
            {"id": name, "object": "model", "created": 0, "owned_by": "incus-stt"}
            for name in self.settings.names
        ]
        if wanted is None:
            return JSONResponse({"object": "list", "data": entries})
        for entry in entries:
            if entry["id"] == wanted:
                return JSONResponse(entry)
        raise self._no_model(wanted)

    async def transcriptions(self, request: Request) -> Response:
        """OpenAI's POST /v1/audio/transcriptions."""
        return await self._answer(request, "transcribe")

    async def translations(self, request: Request) -> Response:
        """OpenAI's POST /v1/audio/translations."""
        return await self._answer(request, "translate")

    def _no_model(self, name: str) -> HTTPException:
        served = self.settings.model_name
        return refuse(404, f"The model {name!r} is not served here; {served!r} is.", "model")

    def _options(self, form: FormData, task: str) -> dict[str, Any]:
        """What faster-whisper is asked for; every field of the request is checked."""
        model = form.get("model")
        if not isinstance(model, str) or not model:
            raise refuse(400, "The field model is missing.", "model")
        if model not in self.settings.names:
            raise self._no_model(model)
        language = str(form.get("language") or "").lower() or self.settings.language or None
        if language and language not in _LANGUAGE_CODES:
            raise refuse(400, f"{language!r} is no language code.", "language")
        if language not in (None, "en") and not self.model.model.is_multilingual:
            raise refuse(400, "This model knows English alone.", "language")
        try:
            temperature = float(str(form.get("temperature") or 0))
        except ValueError:
            temperature = -1.0
        if not 0 <= temperature <= 1:
            raise refuse(400, "The temperature is a number from 0 to 1.", "temperature")
        grains = {str(grain) for grain in form.getlist("timestamp_granularities[]")}
        if not grains <= {"segment", "word"}:
            raise refuse(400, "Granularities are segment and word.", "timestamp_granularities[]")
        return {
            "task": task,
            "language": language,
            "initial_prompt": str(form.get("prompt") or "") or None,
            "temperature": temperature or TEMPERATURES,
            "word_timestamps": "word" in grains,
        }

    async def _answer(self, request: Request, task: str) -> Response:
        async with request.form() as form:
            options = self._options(form, task)
            kind = str(form.get("response_format") or "json")
            if kind not in FORMATS:
                raise refuse(400, f"Formats are {', '.join(FORMATS)}.", "response_format")
            upload = form.get("file")
            if not isinstance(upload, UploadFile):
                raise refuse(400, "The field file is missing.", "file")
            async with self.turn:
                if await request.is_disconnected():
                    return Response(status_code=499)
                transcript = await anyio.to_thread.run_sync(self._transcribe, upload.file, options)
        if str(form.get("stream") or "").lower() in ("true", "1"):
            return StreamingResponse(_events(transcript), media_type="text/event-stream")
        body, media_type = render(transcript, kind)
        if isinstance(body, str):
            return PlainTextResponse(body, media_type=media_type)
        return JSONResponse(body)

    def _transcribe(self, file: BinaryIO, options: Mapping[str, Any]) -> Transcript:
        """Decode and transcribe, in a worker thread. The text is never logged."""
        began = time.perf_counter()
        try:
            audio = faster_whisper.decode_audio(file, sampling_rate=SAMPLING_RATE)
        except (av.error.FFmpegError, IndexError, ValueError) as error:
            raise refuse(400, "The file is no audio that can be decoded.", "file") from error
        segments, info = self.model.transcribe(audio, **options)
        transcript = Transcript(str(options["task"]), info, list(segments))
        took = time.perf_counter() - began
        log.info(
            "%.2f s of audio in %.2f s, real-time factor %.3f, language %s",
            info.duration,
            took,
            took / max(info.duration, 0.001),
            info.language,
        )
        return transcript


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
            response = error_response(401, message, None)
            await response(scope, receive, send)
            return
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self.limit:
            await error_response(413, self._too_large, "file")(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.limit:
                raise refuse(413, self._too_large, "file")
            return message

        await self.app(scope, counted, send)

    @property
    def _too_large(self) -> str:
        return f"The upload is larger than {self.limit >> 20} MiB."


def error_response(status: int, message: str, param: str | None) -> JSONResponse:
    """An error in OpenAI's form."""
    kinds = {401: "authentication_error", 404: "not_found_error"}
    kind = "server_error" if status >= 500 else kinds.get(status, "invalid_request_error")
    codes = {401: "invalid_api_key"}
    code = "model_not_found" if status == 404 and param == "model" else codes.get(status)
    error = {"message": message, "type": kind, "param": param, "code": code}
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
    return JSONResponse({"error": error}, status, headers=headers)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  # registered for it alone
    detail: Any = error.detail
    if isinstance(detail, dict):
        return error_response(error.status_code, detail["message"], detail["param"])
    return error_response(error.status_code, f"{detail}: {request.method} {request.url.path}", None)


async def _any_error(request: Request, error: Exception) -> Response:
    return error_response(500, f"The transcription failed: {type(error).__name__}.", None)


async def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=499)


def create_app(service: Service) -> ASGIApp:
    """The application around a loaded model."""
    app = Starlette(
        routes=[
            Route("/health", service.health),
            Route("/v1/models", service.models),
            Route("/v1/models/{name:path}", service.models),
            Route("/v1/audio/transcriptions", service.transcriptions, methods=["POST"]),
            Route("/v1/audio/translations", service.translations, methods=["POST"]),
        ],
        exception_handlers={
            HTTPException: _http_error,
            ClientDisconnect: _gone,
            Exception: _any_error,
        },
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


def main(arguments: Iterable[str] = ()) -> int:
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
        timeout_graceful_shutdown=10,
    )
    Server(config).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
