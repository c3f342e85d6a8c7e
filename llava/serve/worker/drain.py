"""The end of a worker: nothing new is taken in, what is in is answered, and then the process leaves."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from types import FrameType

import uvicorn

from llava.serve.worker.heartbeat import HeartBeat
from llava.serve.worker.service import WorkerService

GRACE_S = 5  # for the last words to clients, behind the drain's time


class Drain:
    """Entered while a worker's app runs, with the heart beat inside. ``begin`` may be called in a signal handler."""

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
    """uvicorn, which on SIGTERM and SIGINT closes its port and waits for open requests; and says so first."""

    def __init__(self, config: uvicorn.Config, on_exit: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_exit = on_exit

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._on_exit()
        super().handle_exit(sig, frame)

    def run_to_the_end(self) -> None:
        """Serve until a signal comes and the last request is answered."""
        # uvicorn sends the signal on to the handler that was there before, whose default would kill the process.
        signal.signal(signal.SIGTERM, lambda *_: None)
        try:
            self.run()
        except KeyboardInterrupt:  # the same for Ctrl-C
            return
