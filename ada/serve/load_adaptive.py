"""The factor of load-adaptive budgets over time, updated by every request of a worker."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from ada.serve.load_controller import LoadController
from llava.serve.engine.request_queue import Load


class LoadAdaptiveBudget:
    """Runs a ``LoadController`` at every request that leaves the queue. Thread-safe."""

    def __init__(self, controller: LoadController, clock: Callable[[], float] = time.monotonic) -> None:
        self.controller = controller
        self.multiplier = 1.0
        self._clock = clock
        self._last_s = clock()
        self._lock = threading.Lock()

    def update(self, load: Load) -> float:
        """Return the factor for the budget of a request that starts under this load."""
        with self._lock:
            now_s = self._clock()
            wait_s = max(load.waited_s, load.wait_s or 0.0)
            self.multiplier = self.controller.next(self.multiplier, wait_s, now_s - self._last_s)
            self._last_s = now_s
            return self.multiplier

    def current(self) -> float:
        """Return the factor of a request that would start now without a wait. It changes nothing."""
        with self._lock:
            return self.controller.next(self.multiplier, 0.0, self._clock() - self._last_s)
