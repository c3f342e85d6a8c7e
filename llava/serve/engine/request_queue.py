"""The worker's one queue: bounded, first come first served, safe between threads."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from llava.serve.engine.request import ABORT, EngineRequest, Finished, Outcome
from llava.serve.protocol.errors import RequestFailure

OnDone = Callable[[EngineRequest, Outcome], None]
WEIGHT = 0.2  # of the newest request in the mean time that one takes


@dataclass(frozen=True)
class Load:
    """How busy a worker is. ``seconds_per_request``: a moving mean of the time that one request keeps a slot; None
    before the first. ``waited_s``: seconds that the request whose turn it is has waited."""

    waiting: int
    running: int
    slots: int
    seconds_per_request: float | None
    waited_s: float = 0.0

    @property
    def wait_s(self) -> float | None:
        """Seconds that the last one in the queue may expect to wait; None before anything was measured."""
        if self.seconds_per_request is None:
            return None
        return self.waiting * self.seconds_per_request / self.slots


class RequestQueue:
    """At most ``slots`` jobs run and ``max_waiting`` wait; what comes beyond is refused. ``on_done``: called in
    the engine's thread with each job that was taken and its outcome, in front of the client's hearing of it."""

    def __init__(self, slots: int, max_waiting: int, on_done: OnDone = lambda job, outcome: None) -> None:
        self.slots = slots
        self.max_waiting = max_waiting
        self._on_done = on_done
        self._waiting: deque[EngineRequest] = deque()
        self._running: set[EngineRequest] = set()
        self._seconds: float | None = None
        self._closed = False
        self._change = threading.Condition()

    def put(self, job: EngineRequest) -> None:
        """Line up. Raises RequestFailure as ``refuse_if_full`` does."""
        with self._change:
            self._refuse_if_full()
            self._waiting.append(job)
            self._change.notify()

    def refuse_if_full(self) -> None:
        """Raise RequestFailure where nothing is taken in: 429 for a full queue, 503 for a closed one."""
        with self._change:
            self._refuse_if_full()

    def _refuse_if_full(self) -> None:
        waiting, running = len(self._waiting), len(self._running)
        if self._closed:
            raise RequestFailure(503, "shutting_down", "this worker is shutting down; please ask again", retry_after=1)
        if waiting + running >= self.max_waiting + self.slots:
            raise RequestFailure(
                429,
                "queue_full",
                f"the queue is full: {running} requests running and {waiting} waiting; please ask again later",
                retry_after=max(1, math.ceil(self._load().wait_s or 1)),
            )

    def take(self) -> EngineRequest | None:
        """The next job, as soon as there is one; None once the queue is closed and empty. ``done`` must follow."""
        with self._change:
            self._change.wait_for(lambda: self._waiting or self._closed)
            return self._next()

    def take_now(self) -> EngineRequest | None:
        """The next job, or None where nobody waits. ``done`` must follow."""
        with self._change:
            return self._next()

    def _next(self) -> EngineRequest | None:
        if not self._waiting:
            return None
        job = self._waiting.popleft()
        self._running.add(job)
        return job

    def done(self, job: EngineRequest, outcome: Outcome) -> None:
        """A job that was taken has come to its end, which is handed to it."""
        job.ended = time.perf_counter()
        with self._change:
            self._running.discard(job)
            whole = isinstance(outcome, Finished) and outcome.finish_reason != ABORT
            if whole and job.began is not None:
                seconds = job.ended - job.began
                self._seconds = seconds if self._seconds is None else self._seconds + WEIGHT * (seconds - self._seconds)
            self._change.notify_all()
        try:
            self._on_done(job, outcome)
        finally:
            job.end(outcome)

    def drop(self, job: EngineRequest) -> bool:
        """Take a job that still waits out of the queue; False where it does not wait."""
        with self._change:
            if job not in self._waiting:
                return False
            self._waiting.remove(job)
            self._change.notify_all()
            return True

    def close(self) -> None:
        """Take nothing more in; what is in is still answered."""
        with self._change:
            self._closed = True
            self._change.notify_all()

    def jobs(self) -> list[EngineRequest]:
        """All that wait or run."""
        with self._change:
            return [*self._running, *self._waiting]

    @property
    def closed(self) -> bool:
        """Whether nothing more is taken in."""
        return self._closed

    def load(self, job: EngineRequest | None = None) -> Load:
        """How busy the worker is; with ``job``, as it is that one's turn."""
        with self._change:
            return replace(self._load(), waited_s=0.0 if job is None else job.queue_s)

    def _load(self) -> Load:
        return Load(len(self._waiting), len(self._running), self.slots, self._seconds)
