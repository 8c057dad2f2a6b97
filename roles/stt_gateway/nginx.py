"""The configuration of nginx, as text: a pure function of a few values.

It names no server. Which ones there are, and which get requests, is in the files that the watcher
writes (``machine/lists.py``); so a server more or less restarts nothing here. Why it is as it is:
``docs/decisions/0030-the-gateway.md``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from declaration.urls import GATEWAY_PLAIN

HOME = "/var/lib/stt-gateway"
#: What a client is told that is refused; ``stt_server/guard.py`` and ``admission.py`` say the same.
WRONG_KEY = "The API key is missing or wrong. Send it as: Authorization: Bearer KEY."
FULL = "Too many requests are waiting already. Try again."
TOO_LARGE = "The upload is larger than {} MiB."
#: Seconds after which a client may try again.
RETRY_AFTER = 5
#: Seconds until a server has to accept a connection; one that is cut off takes no part of it.
CONNECT_SECONDS = 2
#: Seconds that a server may stop reading a body, and a client sending one.
BODY_SECONDS = 30
#: Seconds for the head of a request, as at the servers.
HEAD_SECONDS = 10
#: How long a transcription may take, and with it all tries of a request. Nobody waits for as long:
#: of a server that no longer answers the watcher ends the connections.
ANSWER = "24h"
#: Bytes of a body that stay in memory; a dictation takes less.
IN_MEMORY = "1m"
#: Statuses that stay here: nginx's own, of a head that is too large and of a request without TLS at
#: a port with it, and one for a full disk.
_LARGE_HEAD, _NO_TLS, _DISK_FULL = 494, 497, 507
#: What clients get for them.
_SENT_AS = {_LARGE_HEAD: 400, _NO_TLS: 400, _DISK_FULL: 503}
#: Answers of a server with which a request goes to the next one; the last one's goes to the client.
_TRIED_ELSEWHERE = ("http_500", "http_502", "http_503", "http_504", "http_429")
#: Errors of requests whose head could not be read.
_UNREAD = (400, 414, _LARGE_HEAD, 505)
_UNREAD_PATHS = "|".join(map(str, _UNREAD))
NO_TLS = "This port speaks HTTPS: use https://, and the address of the output stt_url."
DISK_FULL = "The disk of the gateway is full. Try again later; if it stays full, tell its operator."


@dataclass(frozen=True)
class Tls:
    """HTTPS: the files of the certificate and its key.

    On ``plain_port`` the machine at ``plain_for`` is answered without it; empty: nobody is.
    """

    certificate: str
    key: str
    plain_for: str = ""
    plain_port: int = GATEWAY_PLAIN


@dataclass(frozen=True)
class Gateway:
    """What the configuration depends on.

    ``home`` is where nginx and the watcher keep their files. ``keys_file`` has the keys that
    clients may send (:func:`keys_text`); empty: none is asked for. ``upload_mb``: MiB that a
    request may have. ``tls``: None: it speaks plain HTTP.
    """

    port: int
    upload_mb: int
    keys_file: str
    home: str = HOME
    host: str = "0.0.0.0"  # noqa: S104  # the machine's own service
    tls: Tls | None = None

    @property
    def plain_port(self) -> int:
        """The port without TLS beside the one with it; 0: there is none."""
        return self.tls.plain_port if self.tls and self.tls.plain_for else 0


def keys_text(keys: Iterable[str]) -> str:
    """The file of keys for :attr:`Gateway.keys_file`.

    The backslash keeps nginx from taking a key for one of its own words, or for a pattern.
    """
    return "".join(f'"\\\\{key}" 1;\n' for key in keys)


def error_body(status: int, message: str, param: str | None = None, code: str | None = None) -> str:
    """An error in OpenAI's form, as ``stt_server/guard.py`` has it."""
    kind = "requests" if status == 429 else "invalid_request_error"
    error = {
        "message": message,
        "type": "server_error" if status >= 500 else kind,
        "param": param,
        "code": code,
    }
    return json.dumps({"error": error}, ensure_ascii=False, separators=(",", ":"))


def _errors(upload_mb: int) -> dict[int, tuple[str, str]]:
    """What nginx itself answers: the body, and one header, by status."""
    again = f"Retry-After {RETRY_AFTER}"
    too_large = TOO_LARGE.format(upload_mb)
    return {
        400: (error_body(400, "The request could not be parsed."), ""),
        401: (
            error_body(401, WRONG_KEY, code="invalid_api_key"),
            "WWW-Authenticate Bearer",
        ),
        403: (error_body(403, "Only Open WebUI is answered here. Use the output stt_url."), ""),
        404: (error_body(404, "There is no such route here: see /v1/models and /health."), ""),
        405: (error_body(405, "This route does not allow the method."), ""),
        412: (error_body(412, "This route takes no conditions, such as If-Match."), ""),
        413: (error_body(413, too_large, "file"), ""),
        414: (error_body(414, "The address is too long."), ""),
        429: (error_body(429, FULL, code="rate_limit_exceeded"), again),
        _LARGE_HEAD: (error_body(400, "The head of the request is too large."), ""),
        _NO_TLS: (error_body(400, NO_TLS), ""),
        500: (error_body(500, "The gateway cannot keep the upload. Try again."), again),
        501: (error_body(501, "The gateway knows no Transfer-Encoding but chunked."), ""),
        502: (error_body(502, "Every STT server broke off. Try again."), again),
        503: (error_body(503, "No STT server works now. Try again."), again),
        504: (error_body(504, "No STT server answers in time. Try again."), again),
        505: (error_body(505, "The gateway speaks HTTP/1.1 and HTTP/1.0."), ""),
        _DISK_FULL: (error_body(503, DISK_FULL), again),
    }


def nginx_conf(gateway: Gateway) -> str:
    """The whole configuration."""
    home = gateway.home
    lines = [
        "# Made by incus-stt; `pulumi up` writes it again.",
        "daemon off;",
        "worker_processes 2;",
        f"pid {home}/nginx.pid;",
        "error_log stderr warn;",
        *_block("events", ["worker_connections 16384;"]),
        *_block("http", _http(gateway)),
    ]
    return "".join(f"{line}\n" for line in lines)


def _http(gateway: Gateway) -> list[str]:
    home = gateway.home
    asks = bool(gateway.keys_file)
    plain_for = gateway.tls.plain_for if gateway.tls else ""
    open_paths = rf'"~^0:/(health|none\.json|{_UNREAD_PATHS})$"'
    others = rf"(?!{re.escape(plain_for)}/)[^/]+/(?!({_UNREAD_PATHS})$)"
    return [
        "server_tokens off;",
        "default_type application/json;",
        f"client_body_temp_path {home}/spool;",
        *(f"{each}_temp_path {home}/unused;" for each in ("proxy", "fastcgi", "uwsgi", "scgi")),
        # Keys have up to 200 characters.
        "map_hash_bucket_size 512;",
        # Neither the path, which may have a text of the client's, nor the client's key or address.
        "log_format counts '$status|$request_time|$upstream_addr|$upstream_status';",
        *_map("$http_upgrade $upgrade_or_close", {"default": "upgrade", '""': "close"}),
        # Requests with work and with a body; what only asks takes no place.
        *_map("$request_method $work", {"default": "work", "GET": '""', "HEAD": '""'}),
        *_map(
            '"$work:$status:$uri" $counted',
            {"default": "0", r'"~^work:(?!401)\d+:/v1/"': "1"},
        ),
        f"access_log syslog:server=unix:{home}/counts.sock,nohostname counts if=$counted;",
        *(
            [
                *_map(
                    "$http_authorization $key",
                    {"default": '""', r'"~*^bearer\s+(?<sent>\S+)\s*$"': "$sent"},
                ),
                # In this table case does not count: a server looks again, and takes none.
                *_block("map $key $known", ["default 0;", f"include {gateway.keys_file};"]),
                *_map(
                    "$known:$uri $refused",
                    {"default": "1", '"~^1:"': "0", open_paths: "0"},
                ),
            ]
            if asks
            else []
        ),
        *(
            _map(
                '"$server_port:$remote_addr$uri" $stranger',
                {"default": "0", f'"~^{gateway.plain_port}:{others}"': "1"},
            )
            if plain_for
            else []
        ),
        "limit_conn_zone $work zone=work:1m;",
        "limit_conn_status 429;",
        f"include {home}/servers.conf;",
        *_block("server", _server(gateway)),
    ]


def _server(gateway: Gateway) -> list[str]:
    errors = _errors(gateway.upload_mb)
    pages = {status: f"error_page {status} = {_place(status)};" for status in errors}
    home = gateway.home
    return [
        *_listen(gateway),
        f"client_max_body_size {gateway.upload_mb}m;",
        f"client_body_buffer_size {IN_MEMORY};",
        f"client_header_timeout {HEAD_SECONDS}s;",
        f"client_body_timeout {BODY_SECONDS}s;",
        *pages.values(),
        *(_block("if ($stranger)", ["return 403;"]) if gateway.plain_port else []),
        # Before the body is read, and before its size is looked at.
        *(_block("if ($refused)", ["return 401;"]) if gateway.keys_file else []),
        *_block(
            "location = /health",
            [
                f"root {home}/health;",
                "max_ranges 0;",
                # With one of its own, a location has none of the server's.
                *{**pages, 503: "error_page 503 /none.json;"}.values(),
                "try_files /some.json =503;",
            ],
        ),
        *_block("location = /none.json", ["internal;", f"root {home}/health;"]),
        *_block("location /v1/", _passed(gateway)),
        # Loading and unloading is a matter of one server.
        *_block("location /api/", ["return 404 $each_server;"]),
        *_block("location /", ["return 404;"]),
        *(line for status, answer in errors.items() for line in _error(status, *answer)),
    ]


def _listen(gateway: Gateway) -> list[str]:
    """The ports, and how TLS is spoken."""
    place = f"listen {gateway.host}:{gateway.port}"
    if gateway.tls is None:
        return [f"{place};"]
    plain = gateway.plain_port
    return [
        f"{place} ssl;",
        *([f"listen {gateway.host}:{plain};"] if plain else []),
        f"ssl_certificate {gateway.tls.certificate};",
        f"ssl_certificate_key {gateway.tls.key};",
        "ssl_protocols TLSv1.2 TLSv1.3;",
        # With TLS 1.2: a new secret for each connection, and authenticated encryption only.
        "ssl_ciphers ECDHE+AESGCM:ECDHE+CHACHA20;",
        "ssl_session_cache shared:tls:1m;",
        "ssl_session_tickets off;",
    ]


def _passed(gateway: Gateway) -> list[str]:
    """What goes to a server."""
    home = gateway.home
    return [
        *_block(f"if (!-f {home}/health/some.json)", ["return 503;"]),
        # The watcher's mark. A request that only asks has no $work and no body.
        *_block(f"if (-f {home}/full-for-$work)", [f"return {_DISK_FULL};"]),
        f"include {home}/places.conf;",
        "proxy_pass http://stt;",
        "proxy_http_version 1.1;",
        "proxy_set_header Host $http_host;",
        "proxy_set_header Upgrade $http_upgrade;",
        "proxy_set_header Connection $upgrade_or_close;",
        # The body is whole before a server gets it, and stays until one has answered.
        "proxy_request_buffering on;",
        # A host's firewall can forget connections while it is rewritten: then a server's answer
        # comes through only once something was sent to that server again (``service.KEEPALIVE``).
        "proxy_socket_keepalive on;",
        # What a server says goes on at once: server-sent events.
        "proxy_buffering off;",
        "proxy_buffer_size 16k;",
        "proxy_buffers 4 16k;",
        f"proxy_next_upstream error timeout {' '.join(_TRIED_ELSEWHERE)} non_idempotent;",
        # As many tries as the list of servers has lines.
        "proxy_next_upstream_tries 0;",
        f"proxy_next_upstream_timeout {ANSWER};",
        f"proxy_connect_timeout {CONNECT_SECONDS}s;",
        f"proxy_send_timeout {BODY_SECONDS}s;",
        f"proxy_read_timeout {ANSWER};",
    ]


def _place(status: int) -> str:
    """Where an error's answer is; a request that cannot be read has no address to keep."""
    return f"/{status}" if status in _UNREAD else f"@{status}"


def _error(status: int, body: str, header: str) -> list[str]:
    head = f"location = /{status}" if status in _UNREAD else f"location @{status}"
    return _block(
        head,
        [
            *(["internal;"] if status in _UNREAD else []),
            *([f"add_header {header} always;"] if header else []),
            f"return {_SENT_AS.get(status, status)} '{body}';",
        ],
    )


def _map(names: str, values: Mapping[str, str]) -> list[str]:
    return _block(f"map {names}", [f"{key} {value};" for key, value in values.items()])


def _block(head: str, lines: Iterable[str]) -> list[str]:
    return [f"{head} {{", *(f"    {line}" for line in lines), "}"]
