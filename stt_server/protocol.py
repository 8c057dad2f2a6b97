"""HTTP connections that nobody uses are closed."""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

#: Seconds for the head of a request.
HEAD_SECONDS = 10
#: Seconds in which the rest of a request that is answered already is read, and thrown away: a
#: client that still sends would not see its answer otherwise.
REST_SECONDS = 10


class Protocol(H11Protocol):
    """Uvicorn's, which waits for the head of a request, and for the rest of one, for ever."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._wait(HEAD_SECONDS)

    def data_received(self, data: bytes) -> None:
        """What came may be the end of a head, or the begin of one."""
        before = self.conn.their_state
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            if self._deadline is None or before is h11.SEND_BODY:
                self._wait(HEAD_SECONDS)
        elif self.cycle is None or not self.cycle.response_complete:
            self._stop_waiting()

    def on_response_complete(self) -> None:
        """The next request has its own time; the rest of this one is not read for ever."""
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY:
            self._wait(REST_SECONDS)

    def send_400_response(self, msg: str) -> None:
        """Say that this is no HTTP, where nothing was said yet; the request goes no further."""
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        try:
            super().send_400_response(msg)
        except h11.LocalProtocolError:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait(self, seconds: float) -> None:
        self._stop_waiting()
        self._deadline = self.loop.call_later(seconds, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
