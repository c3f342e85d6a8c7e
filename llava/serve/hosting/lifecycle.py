"""Tracks what a server's process does: it works, drains, or has failed; and how many requests it answers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

log = logging.getLogger(__name__)


class Lifecycle:
    """What one server does now. The first failure is kept; after it the process is to end.

    in_flight: requests that are being answered, those of monitoring left out.
    """

    def __init__(self) -> None:
        self.draining = False
        self.failure: str | None = None
        self.in_flight = 0
        self.cancels: set[Callable[[], None]] = set()  # each ends one request in flight
        self.visits: set[Callable[[], None]] = set()  # each ends one request that lasts as long as its client likes
        self._on_stop: list[Callable[[], None]] = []

    def call_on_stop(self, function: Callable[[], None]) -> None:
        """Call ``function`` once, when draining begins or a failure comes, in the thread where that happens."""
        self._on_stop.append(function)

    @property
    def not_ready_reason(self) -> str | None:
        """Why no request should be sent here; None where one may be."""
        return self.failure or ("it is shutting down" if self.draining else None)

    def drain(self) -> None:
        """Take no more requests, and end once those that were taken are answered."""
        if not self.draining:
            self.draining = True
            log.info("draining: %d requests are being answered", self.in_flight)
            self._stop()

    def abandon(self) -> None:
        """End the requests that are still in flight. In the event loop's thread."""
        for cancel in tuple(self.cancels):
            cancel()

    def end_visits(self) -> None:
        """End the requests that would never end by themselves, as the server does. In the event loop's thread."""
        for cancel in tuple(self.visits):
            cancel()

    def fail(self, what: str, error: BaseException) -> None:
        """Record that a part without which the server cannot work has failed, with its traceback. Thread-safe."""
        log.critical("%s has failed; this process ends", what, exc_info=error)
        if self.failure is None:
            self.failure = f"{what} has failed ({type(error).__name__}); the process is ending"
            self._stop()

    def watch(self, what: str, task: asyncio.Task[None]) -> asyncio.Task[None]:
        """Make the failure of a task the failure of the server; return the task."""

        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and (error := task.exception()) is not None:
                self.fail(what, error)

        task.add_done_callback(ended)
        return task

    def _stop(self) -> None:
        functions, self._on_stop = self._on_stop, []
        for function in functions:
            function()
