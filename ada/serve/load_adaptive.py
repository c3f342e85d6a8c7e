"""A worker's budget multiplier over time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from ada.serve.load_controller import LoadController
from llava.serve.engine.request_queue import Load


class LoadAdaptiveBudget:
    """Applies a law at every request whose turn comes. Safe between threads."""

    def __init__(self, law: LoadController, clock: Callable[[], float] = time.monotonic) -> None:
        self.law = law
        self.multiplier = 1.0
        self._clock = clock
        self._last = clock()
        self._lock = threading.Lock()

    def update(self, load: Load) -> float:
        """The multiplier for a request that starts under this load."""
        with self._lock:
            now = self._clock()
            wait_s = max(load.waited_s, load.wait_s or 0.0)
            self.multiplier = self.law.next(self.multiplier, wait_s, now - self._last)
            self._last = now
            return self.multiplier
