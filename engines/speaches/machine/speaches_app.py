"""Speaches as this project declares it: one model, by all its names, in the declared language.

- Speaches has no setting for a language. It hands every request's to faster-whisper, and there None
  means "detect": this is where ``stt:language`` goes in.
- A recording in which nobody speaks is answered with no words, and not with an error.
- It serves and lists the declared model, not what else lies on the volume. It fetches and deletes
  none: that is what `up` does.
- It logs what a model was loaded as. Nothing about it can be read without a key.
- Speaches knows one key. A client's own (``stt:clients``) stands for it, and the log names the
  client.
- A gateway asks ``/ready``.
- It has no limits: those of ``stt:limits`` come before it. A connection that nobody uses is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hmac
import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping
from typing import Any, NoReturn

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before ONNX Runtime is loaded

import faster_whisper
import starlette.formparsers
import starlette.requests
import uvicorn

from stt_server.clients import ClientKeys, bearer_key, keep_queries_out, name_in_log
from stt_server.guard import LARGEST_FIELD, MOST_FIELDS, MOST_FILES, WRONG_KEY, error_response
from stt_server.limits import Limits, until_left
from stt_server.protocol import Protocol
from stt_server.ready import with_ready

# ASGI's own shapes; what Speaches is built on has them under names that change.
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

#: The first file descriptor that systemd passes.
LISTEN_FDS_START = 3
LANGUAGE = os.environ["INCUS_STT_LANGUAGE"] or None
LIMITS = Limits(
    int(os.environ["STT_AUDIO_MINUTES"]),
    int(os.environ["STT_UPLOAD_MB"]),
    int(os.environ["STT_WAITING"]),
)
#: Samples that Whisper takes at once.
_WINDOW = 30 * 16000


def _as_declared(transcribe: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(transcribe)
    def transcribe_as_declared(self: Any, audio: Any, *args: Any, **kwargs: Any) -> Any:
        kwargs["language"] = kwargs.get("language") or LANGUAGE
        # Where nobody speaks, the list of what to transcribe is empty; faster-whisper takes that
        # for a list that is missing, and of more than half a minute it is an error.
        if kwargs.get("clip_timestamps") == [] and len(audio) >= _WINDOW:
            kwargs["clip_timestamps"] = [{"start": 0, "end": 0}]
        return transcribe(self, audio, *args, **kwargs)

    return transcribe_as_declared


def _logged(init: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(init)
    def init_and_log(self: Any, name: str, *args: Any, **kwargs: Any) -> None:
        init(self, name, *args, **kwargs)
        logging.getLogger("speaches.incus_stt").info(
            "loaded %s: device=%s compute_type=%s", name, self.model.device, self.model.compute_type
        )

    return init_and_log


for _pipeline in (faster_whisper.WhisperModel, faster_whisper.BatchedInferencePipeline):
    _pipeline.transcribe = until_left(_as_declared(_pipeline.transcribe))
faster_whisper.WhisperModel.__init__ = _logged(faster_whisper.WhisperModel.__init__)

_Request: Any = starlette.requests.Request
_Request.form = functools.partialmethod(_Request.form, max_files=MOST_FILES, max_fields=MOST_FIELDS)
starlette.formparsers.MultiPartParser.max_part_size = LARGEST_FIELD

# After the default is in place.
from speaches import dependencies, main  # noqa: E402
from speaches.executors.shared.registry import ExecutorRegistry  # noqa: E402
from speaches.executors.whisper import WhisperModelRegistry  # noqa: E402
from speaches.model_aliases import load_model_id_aliases  # noqa: E402
from speaches.routers import misc, models, stt  # noqa: E402

#: FastAPI's, as Speaches has it.
HTTPException: Any = main.HTTPException

#: The model by each of its names, the one of ``stt:model`` first.
ALIASES: dict[str, str] = load_model_id_aliases()
NAME, SERVED = next(iter(ALIASES.items()))


def _only_served(card_of: Callable[[str], Any]) -> Callable[[str], Any]:
    @functools.wraps(card_of)
    def card_of_served(model_id: str) -> Any:
        if model_id != SERVED:
            raise HTTPException(404, f"The model {model_id!r} is not served here; {NAME!r} is.")
        return card_of(model_id)

    return card_of_served


def _by_every_name(list_models: Callable[[Any], Iterator[Any]]) -> Callable[[Any], Iterator[Any]]:
    @functools.wraps(list_models)
    def list_names(self: Any) -> Iterator[Any]:
        for model in list_models(self):
            if model.id == SERVED:
                for name in dict.fromkeys([*ALIASES, SERVED]):
                    yield model.model_copy(update={"id": name})

    return list_names


def _fetch(self: Any, model_id: str) -> bool:
    if model_id == SERVED:
        return False  # it is here already
    raise HTTPException(
        404,
        f"The model {model_id!r} is not here, and this server downloads none. Set stt:model and "
        f"run `up`. {NAME!r} is served.",
    )


def _delete(model_id: str) -> NoReturn:
    raise HTTPException(405, "This server deletes no models. Set stt:model and run `up`.")


for _router in (misc, stt):
    _router.get_model_card_data_or_raise = _only_served(_router.get_model_card_data_or_raise)
dependencies.decode_audio = LIMITS.decode
WhisperModelRegistry.list_local_models = _by_every_name(WhisperModelRegistry.list_local_models)
ExecutorRegistry.download_model_by_id = _fetch
models.delete_local_model_repo = _delete

#: Speaches logs this line as an error for every good answer.
logging.getLogger("speaches.routers.stt").addFilter(
    lambda record: not record.getMessage().startswith("Unexpected streaming transcription response")
)


#: It logs what is said in a chat.
for _name in ("speaches.routers.chat", "speaches.routers.realtime_rtc"):
    logging.getLogger(_name).setLevel(logging.WARNING)


class Gate:
    """An unload waits for the transcriptions that run, and new ones wait for it.

    Speaches refuses to unload a model that is in use, and loses track of it all the same.
    """

    def __init__(self) -> None:
        self.running = 0
        self.idle = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def pass_by(self, scope: Scope) -> AsyncIterator[None]:
        """Let a request through when it is its time."""
        path = scope.get("path", "")
        if scope["type"] == "http" and path.startswith("/v1/audio/"):
            async with self.idle:
                self.running += 1
            try:
                yield
            finally:
                # A client that leaves cancels this task: the count must not wait for a lock.
                self.running -= 1
                task = asyncio.get_running_loop().create_task(self._tell())
                self._tasks.add(task)  # the loop itself keeps only a weak reference
                task.add_done_callback(self._tasks.discard)
        elif scope.get("method") == "DELETE" and path.startswith("/api/ps/"):
            async with self.idle:
                await self.idle.wait_for(lambda: not self.running)
                yield
        else:
            yield

    async def _tell(self) -> None:
        async with self.idle:
            self.idle.notify_all()


def create_app() -> App:
    """Speaches, with the clients' keys, and with HTTP's own status for a missing one.

    Clients expect 401, and it says 403.

    Its own documentation is not served: it would be to everybody, with or without the key.
    """
    app: Any = main.create_app()
    public = {app.docs_url, app.redoc_url, app.openapi_url, app.swagger_ui_oauth2_redirect_url}
    app.router.routes[:] = [route for route in app.routes if route.path not in public]
    gate = Gate()
    keys = ClientKeys(os.environ["STT_CLIENT_KEYS_FILE"])
    own_key = os.environ.get("API_KEY", "").encode()

    def with_own_key(scope: Scope) -> Scope | None:
        """As Speaches is to see a request; None where the key is wrong.

        Speaches would say so only once the whole of the body was there, in memory.
        """
        given = b"" if scope["type"] == "lifespan" else bearer_key(scope)
        client = keys.name_of(given)
        if not client:
            wrong = own_key and not hmac.compare_digest(given, own_key)
            asks = scope["type"] == "http" and scope["path"] != "/health"
            return None if wrong and asks else scope
        name_in_log(scope, client)
        others = [pair for pair in scope["headers"] if pair[0] != b"authorization"]
        return {**scope, "headers": [*others, (b"authorization", b"Bearer " + own_key)]}

    async def with_status(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_status(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 403:
                message["status"] = 401
                message["headers"] = [*message["headers"], (b"www-authenticate", b"Bearer")]
            await send(message)

        if (known := with_own_key(scope)) is None:
            await error_response(401, WRONG_KEY)(scope, receive, send)
            return
        async with gate.pass_by(scope):
            await limited(known, receive, send_status)

    limited = LIMITS.before(app)
    keep_queries_out()  # /v1/realtime takes the key there too
    return with_ready(with_status, lambda: LIMITS.requests)


def serve() -> None:
    """Serve on the socket that systemd listens on (sd_listen_fds(3)), until SIGTERM."""
    # With proxies' headers a client could write itself another name into the log.
    config = uvicorn.Config(create_app, factory=True, http=Protocol, proxy_headers=False)
    uvicorn.Server(config).run([socket.socket(fileno=LISTEN_FDS_START)])


if __name__ == "__main__":
    serve()
