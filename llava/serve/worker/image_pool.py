"""Runs the reading of images in a few threads, outside the event loop and the engine, with a deadline."""

from __future__ import annotations

import asyncio
import functools
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import anyio

from llava.heap import trim_heap
from llava.serve.protocol.errors import RequestFailure

T = TypeVar("T")
IsLate = Callable[[], bool]


class ImagePool:
    """Threads that read images: one for small ones, which so never wait for large ones, and some for large ones.

    The decoding of one image is bounded before it begins (``llava.files.image_structure``), so a thread is free again
    soon after a deadline has passed. timeout_s: seconds that a request's images may take, their wait included.
    max_pending: requests that may be in the pool, of which ``pending`` are; others get 429. threads: for large images;
    each holds one image.
    """

    def __init__(self, timeout_s: float, max_pending: int, threads: int | None = None) -> None:
        self.timeout_s, self.max_pending = timeout_s, max_pending
        self.pending = 0
        self._small = ThreadPoolExecutor(1, "small-images")
        self._large = ThreadPoolExecutor(threads or default_threads(), "large-images")

    async def run(self, work: Callable[[IsLate], T], is_large: Callable[[], bool]) -> T:
        """Return the result of ``work``, which is given a function that says whether nobody waits any more.

        is_large: whether the work takes long; it is asked in a thread, too. Raises RequestFailure where the pool is
        full or the time is up, and what ``work`` raises. A caller that is cancelled frees its place at once.
        """
        if self.pending >= self.max_pending:
            message = f"the images of {self.pending} requests wait to be read; please ask again later"
            raise RequestFailure(429, "queue_full", message, retry_after=1)
        self.pending += 1
        late = threading.Event()
        try:
            with anyio.fail_after(self.timeout_s):
                large = await _result(self._small, is_large)
                if large:
                    return await _result(self._large, functools.partial(_trimmed, work, late.is_set))
                return await _result(self._small, functools.partial(work, late.is_set))
        except TimeoutError as error:
            message = (
                f"the images were not read within {self.timeout_s:g} s, the wait for others included; send smaller "
                "ones, or ask again later"
            )
            raise RequestFailure(503, "timeout", message, retry_after=1) from error
        finally:
            late.set()
            self.pending -= 1

    def close(self) -> None:
        """End the threads once what they do is done; what waits is cancelled."""
        for executor in (self._small, self._large):
            executor.shutdown(wait=False, cancel_futures=True)


def default_threads() -> int:
    """Return how many threads read large images by default: half of the cores, and at most four."""
    return max(1, min(4, (os.cpu_count() or 1) // 2))


async def _result(executor: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    return await asyncio.wrap_future(executor.submit(work))


def _trimmed(work: Callable[[IsLate], T], is_late: IsLate) -> T:
    """Do the work, and give the memory that large images took back to the system."""
    try:
        return work(is_late)
    finally:
        trim_heap()
