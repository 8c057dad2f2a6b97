"""HTTP connections that nobody uses are closed."""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

#: Seconds for the head of a request.
HEAD_SECONDS = 10
#: Seconds in which the rest of a request that is answered already is read, and thrown away: a
#: client that still sends would not see its answer otherwise.
REST_SECONDS = 10
#: Seconds in which a server that stops still takes a request on a connection that it accepted. A
#: request that has arrived and is not read would be lost: the kernel resets its connection.
LAST_REQUEST_SECONDS = 0.5


class Protocol(H11Protocol):
    """Uvicorn's, which waits for the head of a request, and for the rest of one, for ever."""

    _deadline: asyncio.TimerHandle | None = None
    _stopping = False

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

    def handle_events(self) -> None:
        """A request that comes while the server stops is the last one of its connection."""
        super().handle_events()
        if self._stopping and self.cycle is not None and self.cycle.keep_alive:
            self._close_after(self.cycle)

    def shutdown(self) -> None:
        """The server stops: what a client is about to ask is answered still."""
        self._stopping = True
        if self.cycle is None or self.cycle.response_complete:
            self.loop.call_later(LAST_REQUEST_SECONDS, super().shutdown)
        else:
            self._close_after(self.cycle)

    def _close_after(self, cycle: RequestResponseCycle) -> None:
        cycle.keep_alive = False
        # Uvicorn says so in its answer only to a client that asked for it; others would send their
        # next request on a connection that is about to close.
        cycle.scope["headers"] = [*cycle.scope["headers"], (b"connection", b"close")]

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
