"""Joins a worker's parts to its lifecycle: on the way down the queue closes and the controller learns of it at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from llava.serve.worker.heartbeat import HeartBeat
from llava.serve.worker.service import WorkerService


@contextlib.asynccontextmanager
async def stopping_in_order(service: WorkerService, heart_beat: HeartBeat | None) -> AsyncIterator[None]:
    """Run the heartbeat within the block; when the lifecycle stops, close the queue and leave the controller."""
    loop, lifecycle = asyncio.get_running_loop(), service.lifecycle
    leaving: list[asyncio.Task[None]] = []

    def leave() -> None:
        if heart_beat is not None:
            leaving.append(lifecycle.watch("leaving the controller", asyncio.create_task(heart_beat.leave())))

    def stop() -> None:
        service.drain()
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(leave)

    lifecycle.call_on_stop(stop)
    async with heart_beat or contextlib.nullcontext():
        if heart_beat is not None:
            lifecycle.watch("the heartbeat", heart_beat.task)
        yield
        await asyncio.gather(*leaving, return_exceptions=True)
