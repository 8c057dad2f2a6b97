"""What stands before the routes: the keys, the limit of an upload, and errors in OpenAI's form."""

from __future__ import annotations

import hmac
from collections.abc import Mapping

from python_multipart.multipart import parse_options_header
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stt_server.clients import ClientKeys, bearer_key, name_in_log
from stt_server.settings import Settings

#: Seconds after which a client that is refused may try again.
RETRY_AFTER = "5"
NOT_UTF_8 = "The form's text cannot be read. Send it in UTF-8."
WRONG_KEY = "The API key is missing or wrong. Send it as: Authorization: Bearer KEY."
#: What a form may hold: files, fields, and bytes in a field (``Request.form``). OpenAI's API has
#: about ten short fields.
MOST_FILES, MOST_FIELDS, LARGEST_FIELD = 1, 32, 64 << 10


#: Encodings of a form's text. Some of Python's others take seconds for a field, or make what is no
#: text.
_CHARSETS = (b"utf-8", b"utf8", b"us-ascii", b"iso-8859-1")


class RequestError(Exception):
    """A request that cannot be answered; it goes out in OpenAI's form."""

    def __init__(self, status: int, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.param = status, message, param


def require_form(content_type: str) -> None:
    """See that a request is a form that may hold a file, in an encoding that can be read safely.

    Raises:
        RequestError: it is not.
    """
    kind, told = parse_options_header(content_type)
    if kind.strip().lower() != b"multipart/form-data":
        raise RequestError(400, "The request is not a form. Send it as multipart/form-data.")
    if told.get(b"charset", b"utf-8").lower() not in _CHARSETS:
        raise RequestError(400, NOT_UTF_8)


def announced(headers: Mapping[bytes, bytes]) -> int:
    """Bytes that a request says to have; 0 where it does not say."""
    length = headers.get(b"content-length", b"")
    return int(length) if length.isdigit() else 0


class UploadLimit:
    """How large a request may be; it holds before any of a body is kept."""

    def __init__(self, megabytes: int) -> None:
        self._limit = megabytes << 20
        self._message = f"The upload is larger than {megabytes} MiB."

    def check(self, headers: Mapping[bytes, bytes]) -> None:
        """See what a request says of its size.

        Raises:
            RequestError: it is too large.
        """
        if announced(headers) > self._limit:
            raise self._error()

    def counted(self, receive: Receive) -> Receive:
        """How the body is received; it raises RequestError once it is too large."""
        received = 0

        async def receive_counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._limit:
                raise self._error()
            return message

        return receive_counted

    def _error(self) -> RequestError:
        """A new one each time: an exception keeps what it was raised in, each time it is."""
        return RequestError(413, self._message, "file")


class Guard:
    """The keys, and the limit of an upload."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.key = settings.api_key.encode()
        self.clients = ClientKeys(settings.client_keys_file)
        self.upload = UploadLimit(settings.upload_mb)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass on with a counted body."""
        if scope["type"] != "http" or scope["path"] == "/health":
            await self.app(scope, receive, send)
            return
        given = bearer_key(scope)
        if client := self.clients.name_of(given):
            name_in_log(scope, client)
        if self.key and not client and not hmac.compare_digest(given, self.key):
            await error_response(401, WRONG_KEY)(scope, receive, send)
            return
        try:
            self.upload.check(dict(scope["headers"]))
        except RequestError as error:
            await response_of(error)(scope, receive, send)
            return
        await self.app(scope, self.upload.counted(receive), send)


def response_of(error: RequestError) -> JSONResponse:
    """A request's error as its answer."""
    return error_response(error.status, error.message, error.param)


def error_response(status: int, message: str, param: str | None = None) -> JSONResponse:
    """An error in OpenAI's form."""
    codes = {
        (401, None): "invalid_api_key",
        (404, "model"): "model_not_found",
        (429, None): "rate_limit_exceeded",
    }
    kind = "requests" if status == 429 else "invalid_request_error"
    error = {
        "message": message,
        "type": "server_error" if status >= 500 else kind,
        "param": param,
        "code": codes.get((status, param)),
    }
    headers = {401: {"WWW-Authenticate": "Bearer"}, 429: {"Retry-After": RETRY_AFTER}}
    return JSONResponse({"error": error}, status, headers=headers.get(status))


async def on_error(request: Request, error: Exception) -> Response:
    """Every error that leaves a route."""
    if isinstance(error, RequestError):
        return response_of(error)
    if isinstance(error, HTTPException):
        message = f"{error.detail}: {request.method} {request.url.path}"
        return error_response(error.status_code, message)
    if isinstance(error, ClientDisconnect):
        return Response(status_code=499)  # nobody reads it
    return error_response(500, f"The transcription failed: {type(error).__name__}.")
