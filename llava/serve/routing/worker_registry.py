"""The workers that a controller knows, when each was last heard of, and which one is next."""

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
    """``last_heard``: seconds on the registry's clock. Workers that are not checked never expire."""

    status: WorkerStatus
    check_heart_beat: bool
    last_heard: float


class WorkerRegistry:
    """Workers by address. A worker that is checked and was not heard of for ``expiration_s`` seconds is forgotten.

    lottery draws a worker with its speed as weight; shortest queue takes the least queue for its speed.
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
        """Add a worker, or replace what is known of it."""
        news = "new" if name not in self._workers else "again"
        self._workers[name] = KnownWorker(status, check_heart_beat, self._clock())
        log.info("worker %s registered (%s): %r", name, news, status.model_names)

    def forget(self, name: str, reason: str) -> bool:
        """Drop a worker; whether there was one."""
        known = self._workers.pop(name, None) is not None
        if known:
            log.warning("worker %s forgotten: %s", name, reason)
        return known

    def receive_heartbeat(self, name: str, queue_length: int) -> bool:
        """Note a heart beat; False for a worker that is not known, and should register."""
        self._expire()
        worker = self._workers.get(name)
        if worker is None:
            return False
        worker.status.queue_length = queue_length
        worker.last_heard = self._clock()
        return True

    def workers(self) -> dict[str, KnownWorker]:
        """Those alive, by address."""
        self._expire()
        return dict(self._workers)

    def models(self) -> list[str]:
        """Every model that some worker serves."""
        return sorted({model for worker in self.workers().values() for model in worker.status.model_names})

    def choose(self, model: str, without: Collection[str] = ()) -> str | None:
        """The address that the next request for ``model`` goes to, none of ``without``; None where there is none."""
        able = {
            name: worker.status
            for name, worker in self.workers().items()
            if model in worker.status.model_names and name not in without
        }
        if not able:
            return None
        if self.dispatch_method == LOTTERY:
            return self._rng.choices(list(able), [status.speed for status in able.values()])[0]
        name = min(able, key=lambda name: able[name].queue_length / able[name].speed)
        able[name].queue_length += 1  # until its next heart beat says better
        return name

    def total(self) -> WorkerStatus:
        """All workers as if they were one."""
        statuses = [worker.status for worker in self.workers().values()]
        return WorkerStatus.model_construct(
            model_names=self.models(),
            speed=sum(status.speed for status in statuses),
            queue_length=sum(status.queue_length for status in statuses),
        )

    def _expire(self) -> None:
        now = self._clock()
        for name, worker in list(self._workers.items()):
            silent_s = now - worker.last_heard
            if worker.check_heart_beat and silent_s > self.expiration_s:
                self.forget(name, f"not heard of for {silent_s:.0f} s")
