"""Registry of a controller's workers: their status, their heartbeats, and which one gets the next request."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from llava.serve.protocol.schemas import WorkerStatus

log = logging.getLogger(__name__)

LOTTERY, SHORTEST_QUEUE = "lottery", "shortest_queue"
DISPATCH_METHODS = (LOTTERY, SHORTEST_QUEUE)


@dataclass
class KnownWorker:
    """A registered worker. ``last_heartbeat``: seconds on the registry's clock.

    A worker that is not checked (``check_heart_beat`` false) never expires.
    """

    status: WorkerStatus
    check_heart_beat: bool
    last_heartbeat: float


class WorkerRegistry:
    """Workers by address. A checked worker without a heartbeat for ``expiration_s`` seconds is forgotten.

    ``dispatch_method``: ``lottery`` draws a worker with its speed as weight; ``shortest_queue`` takes the worker with
    the smallest queue length divided by speed. ``clock`` returns seconds; ``rng`` is for the lottery.
    """

    def __init__(
        self,
        dispatch_method: str,
        expiration_s: float,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self.dispatch_method = dispatch_method
        self.expiration_s = expiration_s
        self._clock = clock
        self._rng = rng or random.Random()
        self._workers: dict[str, KnownWorker] = {}

    def register(self, name: str, check_heart_beat: bool, status: WorkerStatus) -> None:
        """Add a worker, or replace the status of a registered one."""
        news = "new" if name not in self._workers else "again"
        self._workers[name] = KnownWorker(status, check_heart_beat, self._clock())
        log.info("worker %s registered (%s): %r", name, news, status.model_names)

    def forget(self, name: str, reason: str) -> bool:
        """Remove a worker; return whether it was registered."""
        registered = self._workers.pop(name, None) is not None
        if registered:
            log.warning("worker %s forgotten: %s", name, reason)
        return registered

    def receive_heartbeat(self, name: str, queue_length: int) -> bool:
        """Record a heartbeat; return False for an unknown worker, which should register."""
        self._expire()
        worker = self._workers.get(name)
        if worker is None:
            return False
        worker.status.queue_length = queue_length
        worker.last_heartbeat = self._clock()
        return True

    def workers(self) -> dict[str, KnownWorker]:
        """Return the workers that are alive, by address."""
        self._expire()
        return dict(self._workers)

    def models(self) -> list[str]:
        """Return the names of all models that some worker serves, sorted."""
        return sorted({model for worker in self.workers().values() for model in worker.status.model_names})

    def choose(self, model: str, exclude: Collection[str] = ()) -> str | None:
        """Choose the worker for the next request for ``model``; return its address, or None where there is none.

        exclude: addresses of workers that have been tried.
        """
        candidates = {
            name: worker.status
            for name, worker in self.workers().items()
            if model in worker.status.model_names and name not in exclude
        }
        if not candidates:
            return None
        if self.dispatch_method == LOTTERY:
            return self._rng.choices(list(candidates), [status.speed for status in candidates.values()])[0]
        name = min(candidates, key=lambda name: candidates[name].queue_length / candidates[name].speed)
        candidates[name].queue_length += 1  # an estimate, until the worker's next heartbeat
        return name

    def total(self) -> WorkerStatus:
        """Return the status of all workers combined, as if they were one worker."""
        statuses = [worker.status for worker in self.workers().values()]
        return WorkerStatus.model_construct(
            model_names=self.models(),
            speed=sum(status.speed for status in statuses),
            queue_length=sum(status.queue_length for status in statuses),
        )

    def _expire(self) -> None:
        now = self._clock()
        for name, worker in list(self._workers.items()):
            silent_s = now - worker.last_heartbeat
            if worker.check_heart_beat and silent_s > self.expiration_s:
                self.forget(name, f"no heartbeat for {silent_s:.0f} s")
