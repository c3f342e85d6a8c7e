"""Bounds what connections may hold: their number, the time of a request's head, the time that bytes stay unread."""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from llava.serve.protocol.errors import ErrorFormat, RequestFailure

MIN_CONNECTIONS = 4
ACCEPTED_AT_ONCE = 4  # connections, before the event loop closes others in exchange
RESERVED_DESCRIPTORS = 6 * ACCEPTED_AT_ONCE  # for these, for log files and images
WAITING_CONNECTIONS = 1024  # in the system's queue, until they are accepted


@dataclass
class ConnectionLimits:
    """Limits of a server's connections, and those that wait for a request, the longest idle first.

    head_timeout_s: from the connection, or a later request's first byte, to the end of the head. send_timeout_s: how
    long a client may read nothing of what was sent. refused: called with the failure of each request that was refused
    before it was one. error_format: makes the reply to it.
    """

    max_connections: int = 1000
    head_timeout_s: float = 10.0
    send_timeout_s: float = 65.0
    error_format: ErrorFormat = RequestFailure.response
    refused: Callable[[RequestFailure], None] = lambda failure: None
    idle: dict[BoundedConnection, None] = field(default_factory=dict)


def affordable_connections(wanted: int, descriptors_each: int = 2) -> int:
    """Return how many connections the process may have open: those wanted, or what its limit of open files allows.

    descriptors_each: files for each connection, as a request may open a second one to another server.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        used = len(os.listdir("/proc/self/fd"))
    except OSError:  # not Linux
        used = 64
    free = (soft - used - RESERVED_DESCRIPTORS) // descriptors_each
    return max(MIN_CONNECTIONS, min(wanted, free))


class BoundedConnection(H11Protocol):
    """A connection of uvicorn within ``ConnectionLimits``.

    uvicorn has no time limit for a request's head, and waits without end to deliver what a client does not read.
    """

    def __init__(self, limits: ConnectionLimits, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._limits = limits
        self._head_timer: asyncio.TimerHandle | None = None
        self._unread_timer: asyncio.TimerHandle | None = None
        self._received = False  # a byte of the next request

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, where there are too many in exchange for the longest idle one."""
        super().connection_made(transport)
        if len(self.connections) > self._limits.max_connections:
            oldest = next(iter(self._limits.idle), None)
            if oldest is None:
                self._refuse(RequestFailure(503, "too_many_connections", "the server is busy", retry_after=1))
                return
            oldest.transport.abort()
            oldest._forget()
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop what waits for the connection."""
        self._forget()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Handle bytes; from the first of a head on, the rest of it must arrive in time."""
        self._received = True
        if self._head_timer is None and not self._answering:
            self._wait_for_head()
        super().data_received(data)

    def handle_events(self) -> None:
        """Handle what has arrived; a complete head is waited for no more."""
        super().handle_events()
        if self._answering:
            self._received = False
            self._stop_waiting()

    def on_response_complete(self) -> None:
        """Wait for the next request, and for the client to read the reply."""
        super().on_response_complete()
        if not self._answering:  # a request that came early is
            self._limits.idle[self] = None
        if self.transport.get_write_buffer_size():
            self._expect_reading()

    def pause_writing(self) -> None:
        """Note that the client does not read as fast as it is sent to."""
        super().pause_writing()
        self._expect_reading()

    def resume_writing(self) -> None:
        """Note that the client has read."""
        super().resume_writing()
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP."""
        self._refuse(RequestFailure(400, "bad_request", msg))

    @property
    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _wait_for_head(self) -> None:
        self._limits.idle[self] = None
        self._head_timer = self.loop.call_later(self._limits.head_timeout_s, self._head_is_late)

    def _stop_waiting(self) -> None:
        self._limits.idle.pop(self, None)
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _forget(self) -> None:
        self._stop_waiting()
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        if not self._received:
            self._close()
            return
        seconds = self._limits.head_timeout_s
        self._refuse(RequestFailure(408, "timeout", f"the request's head did not arrive within {seconds:g} s"))

    def _refuse(self, failure: RequestFailure) -> None:
        """Answer what is no complete request, and close the connection.

        Where its head was complete, the application counts it as one that the client has left.
        """
        answering = self._answering
        if answering:
            self.cycle.disconnected = True
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            reply = self._limits.error_format(failure, None)
            headers = [*reply.raw_headers, (b"connection", b"close")]
            events = h11.Response(status_code=reply.status_code, headers=headers), h11.Data(data=bytes(reply.body))
            for event in (*events, h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
            if not answering:
                self._limits.refused(failure)
        self._close()

    def _close(self) -> None:
        self.transport.close()
        self._stop_waiting()
        self._expect_reading()

    def _expect_reading(self) -> None:
        """Cut the connection where the client leaves unread what it was sent."""
        if self._unread_timer is None:
            self._unread_timer = self.loop.call_later(self._limits.send_timeout_s, self._cut_if_unread)

    def _cut_if_unread(self) -> None:
        self._unread_timer = None
        if self.transport.get_write_buffer_size():
            self.transport.abort()
