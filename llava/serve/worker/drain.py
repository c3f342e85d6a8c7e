"""Graceful shutdown of a worker: accept nothing more, answer what was accepted, then exit."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn

from llava.serve.worker.heartbeat import HeartBeat
from llava.serve.worker.service import WorkerService

log = logging.getLogger(__name__)

GRACE_S = 5  # seconds after the drain's time limit in which replies that were stopped reach their clients


class Drain:
    """Drains a worker when ``begin`` is called, in a signal handler or elsewhere.

    A context manager that is entered while the worker's app runs, and runs the heartbeat.
    """

    def __init__(self, service: WorkerService, heart_beat: HeartBeat | None, timeout_s: float) -> None:
        self.service = service
        self.heart_beat = heart_beat
        self.timeout_s = timeout_s
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Drain:
        self._loop = asyncio.get_running_loop()
        if self.heart_beat is not None:
            await self.heart_beat.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.heart_beat is not None:
            await self.heart_beat.__aexit__(*error)

    def begin(self) -> None:
        """Drain from now on; after ``timeout_s`` seconds stop what still runs."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._begin)

    def _begin(self) -> None:
        if self._tasks:
            return
        self.service.drain()
        self._tasks.append(asyncio.create_task(self._abandon_later()))
        if self.heart_beat is not None:
            self._tasks.append(asyncio.create_task(self.heart_beat.leave()))

    async def _abandon_later(self) -> None:
        await asyncio.sleep(self.timeout_s)
        self.service.abandon()


class DrainingServer(uvicorn.Server):
    """A uvicorn server that calls ``on_exit`` on SIGTERM and SIGINT, closes its port and waits for open requests.

    sockets: to listen at, where they are bound already; else it binds the config's host and port.
    """

    def __init__(
        self, config: uvicorn.Config, on_exit: Callable[[], None], sockets: list[socket.socket] | None = None
    ) -> None:
        super().__init__(config)
        self._on_exit = on_exit
        self._sockets = sockets

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen; log the address where uvicorn does not, which is where the sockets were bound before."""
        await super().startup(sockets)
        for bound in sockets or ():
            log.info("running on http://%s:%d", *bound.getsockname()[:2])

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle a signal: drain, then shut down as uvicorn does."""
        self._on_exit()
        super().handle_exit(sig, frame)

    def run_until_drained(self) -> None:
        """Serve until a signal comes and the last request is answered."""
        # uvicorn sends the signal on to the handler that was there before, whose default would kill the process.
        signal.signal(signal.SIGTERM, lambda *_: None)
        try:
            self.run(self._sockets)
        except KeyboardInterrupt:  # the same for Ctrl-C
            return
