"""What stands before the routes: the keys, the limit of an upload, and errors in OpenAI's form."""

from __future__ import annotations

import hmac

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stt_server.clients import ClientKeys, bearer_key, name_in_log
from stt_server.settings import Settings

#: Seconds after which a client that is refused may try again.
RETRY_AFTER = "5"


class RequestError(Exception):
    """A request that cannot be answered; it goes out in OpenAI's form."""

    def __init__(self, status: int, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.param = status, message, param


class Guard:
    """The keys, and the limit of an upload, before any of a body is kept."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.key = settings.api_key.encode()
        self.clients = ClientKeys(settings.client_keys_file)
        self.limit = settings.upload_mb << 20

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass on with a counted body."""
        if scope["type"] != "http" or scope["path"] == "/health":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        given = bearer_key(scope)
        if client := self.clients.name_of(given):
            name_in_log(scope, client)
        if self.key and not client and not hmac.compare_digest(given, self.key):
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
        return error_response(error.status, error.message, error.param)
    if isinstance(error, HTTPException):
        message = f"{error.detail}: {request.method} {request.url.path}"
        return error_response(error.status_code, message)
    if isinstance(error, ClientDisconnect):
        return Response(status_code=499)  # nobody reads it
    return error_response(500, f"The transcription failed: {type(error).__name__}.")
