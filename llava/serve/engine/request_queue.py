"""The worker's queue of requests: bounded, first come first served, thread-safe."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from llava.serve.engine.request import ABORT, EngineRequest, Finished, Outcome
from llava.serve.protocol.errors import RequestFailure

OnDone = Callable[[EngineRequest, Outcome], None]
ENGINE_FAILED = "engine_failed"  # why requests are cancelled and refused, for programs
SMOOTHING = 0.2  # weight of the newest request in the moving mean of the service time


@dataclass(frozen=True)
class Load:
    """How busy a worker is.

    seconds_per_request: moving mean of the time that one request occupies a slot; None before the first has ended.
    waited_s: seconds that the request whose turn it is has waited.
    """

    waiting: int
    running: int
    slots: int
    seconds_per_request: float | None
    waited_s: float = 0.0

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
        self._waiting: deque[EngineRequest] = deque()
        self._running: set[EngineRequest] = set()
        self._seconds_per_request: float | None = None
        self._closed = False
        self._change = threading.Condition()

    def put(self, request: EngineRequest) -> None:
        """Append a request. Raises RequestFailure as ``refuse_if_full`` does."""
        with self._change:
            self._refuse_if_full()
            self._waiting.append(request)
            self._change.notify()

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
            self._change.wait_for(lambda: self._waiting or self._closed)
            return self._next()

    def take_now(self) -> EngineRequest | None:
        """Return the next request, or None where none waits. Call ``done`` after it."""
        with self._change:
            return self._next()

    def _next(self) -> EngineRequest | None:
        if not self._waiting:
            return None
        request = self._waiting.popleft()
        self._running.add(request)
        return request

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
            return replace(self._load(), waited_s=0.0 if request is None else request.queue_s)

    def _load(self) -> Load:
        return Load(len(self._waiting), len(self._running), self.slots, self._seconds_per_request)
