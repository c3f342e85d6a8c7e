"""The worker's queue of requests: bounded, thread-safe, promises that are due first, and the others as they come."""

from __future__ import annotations

import math
import threading
import time
from bisect import insort
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from llava.serve.engine.promise import Job, schedule, turn
from llava.serve.engine.request import ABORT, EngineRequest, Finished, Outcome
from llava.serve.protocol.errors import RequestFailure

OnDone = Callable[[EngineRequest, Outcome], None]
ENGINE_FAILED = "engine_failed"  # why requests are cancelled and refused, for programs
SMOOTHING = 0.2  # weight of the newest request in the moving mean of the service time


@dataclass(frozen=True)
class Load:
    """How busy a worker is.

    seconds_per_request: moving mean of the time that one request occupies a slot; None before the first has ended.
    waited_s: seconds that the request whose turn it is has been in the queue. first_token_s: seconds until its first
    token that leave those that wait enough time to keep their promises at their minimum; infinite where it has no
    promise itself. elapsed_s: seconds since it arrived, the reading of its images included.
    """

    waiting: int
    running: int
    slots: int
    seconds_per_request: float | None
    waited_s: float = 0.0
    first_token_s: float = math.inf
    elapsed_s: float = 0.0

    @property
    def wait_s(self) -> float | None:
        """Seconds that the last request in the queue may expect to wait; None before anything was measured."""
        if self.seconds_per_request is None:
            return None
        return self.waiting * self.seconds_per_request / self.slots


class RequestQueue:
    """At most ``slots`` requests run and ``max_waiting`` wait; what comes beyond is refused.

    on_done: called in the engine's thread with each request that was taken and its outcome, before the client gets it.
    on_failure: called with the error that has ended the engine, from its thread.
    """

    def __init__(
        self,
        slots: int,
        max_waiting: int,
        on_done: OnDone = lambda request, outcome: None,
        on_failure: Callable[[BaseException], None] = lambda error: None,
    ) -> None:
        self.slots = slots
        self.max_waiting = max_waiting
        self._on_done = on_done
        self._on_failure = on_failure
        self._waiting: list[EngineRequest] = []
        self._running: set[EngineRequest] = set()
        self._seconds_per_request: float | None = None
        self._closed = False
        self._change = threading.Condition()

    def put(self, request: EngineRequest) -> None:
        """Add a request. Raises RequestFailure as ``refuse_if_full`` does, and where a promise would not be kept."""
        with self._change:
            self._refuse_if_full()
            self._refuse_if_slow(request)
            self._refuse_if_late(request)
            request.queued = time.perf_counter()
            insort(self._waiting, request, key=lambda request: request.due)
            self._change.notify()

    def _refuse_if_slow(self, request: EngineRequest) -> None:
        """Raise RequestFailure where its tokens would come too slowly among those that run and wait."""
        promise = request.generation.promise
        if promise is None or (pace := promise.pace) is None:
            return
        rows = min(self.slots, len(self._running) + len(self._waiting) + 1)
        if (minimum_s := pace.minimum_s(rows)) > pace.token_s:
            message = (
                f"the promised time does not suffice: each token was to take {1000 * pace.token_s:.4g} ms, and takes "
                f"{1000 * minimum_s:.4g} ms at the minimum with {rows} at a time; give it more, or ask again later"
            )
            raise RequestFailure(503, "promise_out_of_reach", message, retry_after=1)

    def _refuse_if_late(self, request: EngineRequest) -> None:
        """Raise RequestFailure where a promise, its own or another's that waits, would no longer be kept."""
        if request.generation.promise is None or not request.generation.promise.is_due:
            return
        now, job, waiting = time.perf_counter(), self._job(request), [self._job(other) for other in self._waiting]
        start = now + self._running_s(now)
        found = schedule([*waiting, job], start)
        if found.kept <= schedule(waiting, start).kept:
            if (end := found.ends[job]) <= job.due:  # it is in time, and another is not: it can be the last one
                last = replace(job, due=math.inf)
                end = schedule([*waiting, last], start).ends[last]
            raise _out_of_reach(request, end - request.arrived, len(waiting))

    def _job(self, request: EngineRequest) -> Job:
        promise = request.generation.promise
        mean_s = (self._seconds_per_request or 0.0) / self.slots
        return Job(request.due, mean_s if promise is None else promise.work_s, promise is not None and promise.is_due)

    def _running_s(self, now: float) -> float:
        """Seconds of work that the running requests, which share the engine, are expected to have left."""
        mean_s, running = self._seconds_per_request or 0.0, self._running
        left = sum(max(0.0, mean_s - (now - (request.began or now))) for request in running)
        return left / max(1, len(running))

    def refuse_if_full(self) -> None:
        """Raise RequestFailure where no request is accepted: 429 for a full queue, 503 for a closed one."""
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
        """Wait for the next request and return it; None once the queue is closed and empty. Call ``done`` after it."""
        with self._change:
            while True:
                self._change.wait_for(lambda: self._waiting or self._closed)
                request = self._next()
                if request is not None or self._closed:
                    return request

    def take_now(self) -> EngineRequest | None:
        """Return the next request, or None where none waits. Call ``done`` after it."""
        with self._change:
            return self._next()

    def _next(self) -> EngineRequest | None:
        while self._waiting:
            now = time.perf_counter()
            request = self._waiting.pop(turn([*map(self._job, self._waiting)], now, self._running_s(now)))
            promise = request.generation.promise
            if promise is not None and promise.is_due:
                late_s = now + promise.work_s - request.due
                if late_s > 0:
                    request.end(_out_of_reach(request, promise.due_s + late_s, len(self._waiting)))
                    continue
            self._running.add(request)
            return request
        return None

    def done(self, request: EngineRequest, outcome: Outcome) -> None:
        """Free the slot of a request that was taken, and publish its outcome."""
        request.ended = time.perf_counter()
        with self._change:
            self._running.discard(request)
            completed = isinstance(outcome, Finished) and outcome.finish_reason != ABORT
            if completed and request.began is not None:
                self._observe(request.ended - request.began)
            self._change.notify_all()
        try:
            self._on_done(request, outcome)
        finally:
            if request.outcome is None:  # else the engine has failed meanwhile
                request.end(outcome)

    def _observe(self, seconds: float) -> None:
        mean = self._seconds_per_request
        self._seconds_per_request = seconds if mean is None else mean + SMOOTHING * (seconds - mean)

    def drop(self, request: EngineRequest) -> bool:
        """Remove a request that still waits; return False where it does not wait."""
        with self._change:
            if request not in self._waiting:
                return False
            self._waiting.remove(request)
            self._change.notify_all()
            return True

    def position(self, request: EngineRequest) -> int:
        """Return which one of those that wait a request is, 1 for the next; 0 where it does not wait."""
        with self._change:
            return self._waiting.index(request) + 1 if request in self._waiting else 0

    def close(self) -> None:
        """Accept nothing more; requests that were accepted are still answered."""
        with self._change:
            self._closed = True
            self._change.notify_all()

    def fail(self, error: BaseException) -> None:
        """Accept nothing more, and end every request, running or waiting, as the engine has failed with ``error``."""
        try:
            self._on_failure(error)
        finally:
            self._end_all(error)

    def _end_all(self, error: BaseException) -> None:
        with self._change:
            self._closed = True
            failed = [*self._running, *self._waiting]
            self._running.clear()
            self._waiting.clear()
            self._change.notify_all()
        message = f"the worker's engine has failed ({type(error).__name__}), and the worker ends; please ask again"
        for request in failed:
            request.cancel(ENGINE_FAILED)
            if request.outcome is None:
                request.end(RequestFailure(503, ENGINE_FAILED, message, retry_after=1))

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Fail all requests where the block raises: for the body of an engine's thread, which nobody else watches."""
        try:
            yield
        except BaseException as error:  # noqa: BLE001 - a thread that ends by any of them answers nobody any more
            self.fail(error)

    def requests(self) -> list[EngineRequest]:
        """Return all requests that wait or run."""
        with self._change:
            return [*self._running, *self._waiting]

    @property
    def closed(self) -> bool:
        """Whether nothing more is accepted."""
        return self._closed

    def load(self, request: EngineRequest | None = None) -> Load:
        """Return how busy the worker is, with the time that ``request``, where given, has waited."""
        with self._change:
            load = self._load()
            if request is None:
                return load
            first_token_s, elapsed_s = self._first_token_s(request), request.queue_s
            return replace(load, waited_s=request.waited_s, first_token_s=first_token_s, elapsed_s=elapsed_s)

    def _first_token_s(self, request: EngineRequest) -> float:
        promise = request.generation.promise
        if promise is None or not promise.is_due:
            return math.inf
        spare_s = schedule(map(self._job, self._waiting), time.perf_counter()).spare_s
        return promise.first_s * max(1.0, spare_s / promise.work_s)

    def _load(self) -> Load:
        return Load(len(self._waiting), len(self._running), self.slots, self._seconds_per_request)


def _out_of_reach(request: EngineRequest, possible_s: float, waiting: int) -> RequestFailure:
    """Return the refusal of a request whose promise cannot be kept; ``possible_s``: what could be, from its arrival."""
    promise = request.generation.promise
    assert promise is not None
    message = (
        f"the promised time does not suffice: this answer is due in {1000 * promise.due_s:.0f} ms, and with {waiting} "
        f"waiting it would take {1000 * possible_s:.0f} ms at the minimum; give it more time, or ask again later"
    )
    return RequestFailure(503, "promise_out_of_reach", message, retry_after=1)
