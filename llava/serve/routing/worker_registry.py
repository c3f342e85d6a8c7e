"""Registry of a controller's workers: their status, their heartbeats, and which one gets the next request."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Gauge

from llava.serve.protocol.errors import RequestFailure, shortened
from llava.serve.protocol.schemas import WorkerStatus

log = logging.getLogger(__name__)

MAX_WORKERS = 256
LOTTERY, SHORTEST_QUEUE = "lottery", "shortest_queue"
DISPATCH_METHODS = (LOTTERY, SHORTEST_QUEUE)


@dataclass
class KnownWorker:
    """A registered worker. ``last_heartbeat``: seconds on the registry's clock.

    A worker that is not checked (``check_heart_beat`` false) never expires. turn: number of the last choice that fell
    on it, 0 before the first.
    """

    status: WorkerStatus
    check_heart_beat: bool
    last_heartbeat: float
    turn: int = 0


def _load_and_turn(worker: KnownWorker) -> tuple[float, int]:
    """What the next request goes by: load first, then whose turn it is."""
    return worker.status.queue_length / worker.status.speed, worker.turn


class WorkerRegistry:
    """Workers by address. A checked worker without a heartbeat for ``expiration_s`` seconds is forgotten.

    ``dispatch_method``: ``lottery`` draws a worker with its speed as weight; ``shortest_queue`` takes the worker with
    the smallest queue length divided by speed, of several the one whose last turn was earliest. ``clock`` returns
    seconds; ``rng`` is for the lottery.
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
        self._turns = 0

    def register(self, name: str, check_heart_beat: bool, status: WorkerStatus) -> None:
        """Add a worker, or replace the status of a registered one.

        Raises RequestFailure where ``MAX_WORKERS`` are registered: whoever may register may not fill the memory.
        """
        known = self.workers().get(name)
        if known is None and len(self._workers) >= MAX_WORKERS:
            message = f"{MAX_WORKERS} workers are registered, which is the maximum"
            raise RequestFailure(503, "too_many_workers", message, retry_after=60)
        self._workers[name] = KnownWorker(status, check_heart_beat, self._clock(), known.turn if known else 0)
        news, models = "again" if known else "new", shortened(status.model_names)
        log.info("worker %s registered (%s): %s", name, news, models)

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
            name: worker
            for name, worker in self.workers().items()
            if model in worker.status.model_names and name not in exclude
        }
        if not candidates:
            return None
        if self.dispatch_method == LOTTERY:
            return self._rng.choices(list(candidates), [worker.status.speed for worker in candidates.values()])[0]
        name, chosen = min(candidates.items(), key=lambda item: _load_and_turn(item[1]))
        self._turns += 1
        chosen.turn = self._turns
        chosen.status.queue_length += 1  # an estimate, until the worker's next heartbeat
        return name

    def total(self) -> WorkerStatus:
        """Return the status of all workers combined, as if they were one worker."""
        statuses = [worker.status for worker in self.workers().values()]
        return WorkerStatus.model_construct(
            model_names=self.models(),
            speed=sum(status.speed for status in statuses),
            queue_length=sum(status.queue_length for status in statuses),
        )

    def metrics(self) -> CollectorRegistry:
        """Return a Prometheus registry of the number of workers, and of the requests that they report."""
        registry = CollectorRegistry()
        workers = Gauge("llava:num_workers", "Workers that are registered.", registry=registry)
        workers.set_function(lambda: len(self.workers()))
        text = "Requests running or waiting in all workers, by their last heartbeats."
        Gauge("llava:num_requests", text, registry=registry).set_function(lambda: self.total().queue_length)
        return registry

    def _expire(self) -> None:
        now = self._clock()
        for name, worker in list(self._workers.items()):
            silent_s = now - worker.last_heartbeat
            if worker.check_heart_beat and silent_s > self.expiration_s:
                self.forget(name, f"no heartbeat for {silent_s:.0f} s")
