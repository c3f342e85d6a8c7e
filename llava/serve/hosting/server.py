"""Runs a server's application until a signal or a failure: drains with the port open, then ends with an exit code."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import NoReturn

import uvicorn
from fastapi import FastAPI

from llava.serve.hosting.connections import (
    ACCEPTED_AT_ONCE,
    WAITING_CONNECTIONS,
    BoundedConnection,
    ConnectionLimits,
    affordable_connections,
)
from llava.serve.hosting.lifecycle import Lifecycle
from llava.serve.hosting.options import GRACE_S, HostingOptions
from llava.serve.hosting.sockets import refusals, url_of
from llava.serve.middleware.body_limits import BodyLimits
from llava.serve.middleware.stack import Middleware

log = logging.getLogger(__name__)

KEEP_ALIVE_S = 15  # longer than httpx's 5 s, so that no request arrives at a connection that is being closed
UNREAD_SLACK_S = 5.0  # after the middleware's time limit for unread pieces, which ends a reply in order


class DrainingServer(uvicorn.Server):
    """A uvicorn server that answers while it drains.

    After SIGTERM, SIGINT or ``lifecycle.drain()`` it ends as soon as no request is in flight, or calls ``abandon``
    after ``drain_timeout_s`` seconds and ends ``GRACE_S`` later. A second signal ends it at once. After a failure of
    the lifecycle it has ``GRACE_S`` for replies.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        lifecycle: Lifecycle,
        drain_timeout_s: float,
        abandon: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(config)
        self.lifecycle = lifecycle
        self.drain_timeout_s = drain_timeout_s
        self._abandon = abandon
        self._abandoned = False
        self._stopping_since: float | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._signalled = False
        self._when_listening: Callable[[], None] | None = None

    def call_when_listening(self, function: Callable[[], None]) -> None:
        """Call ``function``, which may take long, in a thread once the server listens."""
        self._when_listening = function

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen, and log the address."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        for bound in sockets or ():
            bound.listen(WAITING_CONNECTIONS)  # asyncio has one number for this and for those it accepts at once
        if sockets:
            log.info("running on %s", url_of(self.config.host, sockets[0].getsockname()[1]))
        if self._when_listening is not None:
            self._loop.run_in_executor(None, self._when_listening)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle a signal: drain; at the second one, end."""
        if self._loop is None or self._signalled:
            self.should_exit = self.force_exit = True
        else:
            self._signalled = True
            self._loop.call_soon_threadsafe(self.lifecycle.drain)

    async def on_tick(self, counter: int) -> bool:
        """Return whether to end now; called every 0.1 s."""
        ends = await super().on_tick(counter) or self._drained()
        if ends:
            self.lifecycle.end_visits()
        return ends

    def _drained(self) -> bool:
        lifecycle = self.lifecycle
        if not (lifecycle.draining or lifecycle.failure):
            return False
        now = time.monotonic()
        if self._stopping_since is None:  # at the next tick, so that what has just arrived is seen
            self._stopping_since = now
            return False
        if not lifecycle.in_flight:
            return True
        elapsed_s, limit_s = now - self._stopping_since, 0.0 if lifecycle.failure else self.drain_timeout_s
        if elapsed_s > limit_s and not self._abandoned:
            self._abandoned = True
            self._abandon()
        return elapsed_s > limit_s + GRACE_S


def make_server(
    app: FastAPI,
    middleware: Middleware,
    options: HostingOptions,
    host: str,
    limits: BodyLimits | None = None,
    abandon: Callable[[], None] | None = None,
) -> DrainingServer:
    """Return the server of an application with this middleware.

    abandon: stops what outlasts the drain; by default the lifecycle ends these requests.
    """
    connections = ConnectionLimits(
        affordable_connections(options.max_connections),
        options.head_timeout_s,
        (limits or BodyLimits()).send_timeout_s + UNREAD_SLACK_S,
        middleware.error_format,
        middleware.record_refused,
    )
    config = uvicorn.Config(
        app,
        host=host.removeprefix("[").removesuffix("]"),
        http=functools.partial(BoundedConnection, connections),  # type: ignore[arg-type]  # uvicorn only calls it
        ws="none",
        log_config=None,
        access_log=False,
        backlog=ACCEPTED_AT_ONCE,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
        forwarded_allow_ips="127.0.0.1,::1",
    )
    lifecycle = middleware.lifecycle
    return DrainingServer(config, lifecycle, options.drain_timeout_s, abandon or lifecycle.abandon)


def end_process(code: int) -> NoReturn:
    """End this process with an exit code. Threads that still work are not waited for: their clients have left."""
    logging.shutdown()
    sys.stdout.flush()
    if any(thread is not threading.main_thread() and not thread.daemon for thread in threading.enumerate()):
        os._exit(code)
    raise SystemExit(code)


def run_server(server: DrainingServer, sockets: Sequence[socket.socket]) -> int:
    """Serve at bound sockets until a signal or a failure comes; return the exit code, 1 after a failure.

    Raises OptionError where another program has begun to listen at the port in between.
    """
    with refusals(server.config.host, sockets[0].getsockname()[1]):
        server.run(list(sockets))
    return 1 if server.lifecycle.failure else 0
