"""A worker without its network: accepts checked requests, knows whether it is ready, and stops."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import anyio.to_thread
from prometheus_client import CollectorRegistry

from llava.model.loaded_model import LoadedModel
from llava.serve.engine.policy import Policies, ServingPolicy
from llava.serve.engine.request import EngineRequest, GenerationRequest, Outcome
from llava.serve.engine.request_queue import RequestQueue
from llava.serve.engine.threads_engine import Engine, ThreadsEngine
from llava.serve.hosting.lifecycle import Lifecycle
from llava.serve.middleware.request_end import RequestEnd
from llava.serve.protocol.errors import RequestFailure
from llava.serve.protocol.schemas import GenerationBody, WorkerStatus
from llava.serve.worker.image_pool import ImagePool
from llava.serve.worker.known_pixels import KnownPixels
from llava.serve.worker.metrics import WorkerMetrics, metrics_prefix
from llava.serve.worker.parse_request import parse_request
from llava.serve.worker.request_images import is_large
from llava.serve.worker.request_limits import RequestLimits
from llava.serve.worker.response_stream import SHUTDOWN, ResponseStream

GENERATE = "/worker_generate_stream"
EngineMaker = Callable[[LoadedModel, RequestQueue, ServingPolicy], Engine]


@dataclass
class WorkerService:
    """The state that a worker's endpoints share.

    slots: requests that run at the same time. max_waiting: requests that may wait. stream_interval: tokens in a chunk.
    on_change: called, from any thread, as requests come and go. metrics_prefix: with which names of metrics begin.
    """

    loaded: LoadedModel
    limits: RequestLimits = field(default_factory=RequestLimits)
    policy: ServingPolicy = field(default_factory=Policies)
    slots: int = 1
    max_waiting: int = 32
    stream_interval: int = 1
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    make_engine: EngineMaker = ThreadsEngine
    on_change: Callable[[], None] = lambda: None
    lifecycle: Lifecycle = field(default_factory=Lifecycle)
    metrics_prefix: str = field(default_factory=lambda: metrics_prefix({}))

    def __post_init__(self) -> None:
        self.queue = RequestQueue(self.slots, self.max_waiting, self._ended, self._failed)
        self.images = ImagePool(self.limits.image_timeout_s, self.slots + self.max_waiting, self.limits.image_threads)
        self.known_pixels = KnownPixels()
        names = self.loaded.name, self.metrics_prefix
        self.metrics = WorkerMetrics(self.registry, *names, self.queue.load, self.kv_usage)
        self.engine = self.make_engine(self.loaded, self.queue, self.policy)
        self._change = threading.Lock()
        self._entrants, self._draining = 0, False  # entrants: requests that are accepted now

    def kv_usage(self) -> float:
        """Return the share of the KV cache that requests have filled: of a context's length in every slot."""
        return self.engine.positions() / (self.slots * self.loaded.context_length)

    def status(self) -> WorkerStatus:
        """Return the status that the controller asks for."""
        load = self.queue.load()
        requests = self.images.pending + load.waiting + load.running
        return WorkerStatus(model_names=[self.loaded.name], speed=1, queue_length=requests)

    def not_ready_reason(self) -> str | None:
        """Return why no request should be sent here; None where one may be."""
        if (failure := self.failure()) is not None:
            return failure
        stops = self._draining or self.queue.closed
        return "it is shutting down" if stops else self.lifecycle.not_ready_reason

    def failure(self) -> str | None:
        """Return why the process is to be restarted; None where it works."""
        if self.lifecycle.failure is not None or self.queue.closed or self.engine.alive:
            return self.lifecycle.failure
        return "its engine has died; restart it"

    async def accept(self, body: GenerationBody, request_id: str, arrived: float | None = None) -> ResponseStream:
        """Check a request and put it in the queue. Raises RequestFailure or a ``LlavaError``.

        arrived: when it came, by ``time.perf_counter``; by default now.
        """
        arrived = time.perf_counter() if arrived is None else arrived  # reading its images counts
        with self._entering():
            self.queue.refuse_if_full()  # before any work is done for it
            generation = await self._parse(body)
            stream = ResponseStream(generation, request_id, self.queue, self.limits, self.stream_interval)
            stream.request.arrived = arrived
            self.queue.put(stream.request)
        self.on_change()
        return stream

    @contextmanager
    def _entering(self) -> Iterator[None]:
        """Keep the queue open on a request's way into it. Raises RequestFailure where none may be sent here."""
        with self._change:
            if (reason := self.not_ready_reason()) is not None:
                raise RequestFailure(503, "not_ready", f"this worker takes no requests: {reason}", retry_after=1)
            self._entrants += 1
        try:
            yield
        finally:
            with self._change:
                self._entrants -= 1
                is_last = self._draining and not self._entrants
            if is_last:
                self.queue.close()

    async def _parse(self, body: GenerationBody) -> GenerationRequest:
        """Check a request outside the event loop; one with images in the pool that bounds their number and time."""
        parse = functools.partial(parse_request, body, self.loaded, self.limits, self.policy, known=self.known_pixels)
        if not body.images:
            return await anyio.to_thread.run_sync(parse)
        return await self.images.run(parse, functools.partial(is_large, body, self.limits, self.known_pixels))

    async def close(self, stream: ResponseStream) -> None:
        """Release what a reply holds once it has ended, however it did."""
        stream.close()
        self.on_change()

    def drain(self) -> None:
        """Accept nothing more; requests that came before are answered, those whose images are being read included."""
        with self._change:
            self._draining = True
            waits = self._entrants > 0 and self.failure() is None
        if not waits:  # else the last one of them closes it
            self.queue.close()
        self.on_change()

    def abandon(self) -> None:
        """Stop the requests that still run or wait, and take no more; their clients get a failure."""
        self.queue.close()
        for request in self.queue.requests():
            request.cancel(SHUTDOWN)
            if self.queue.drop(request):
                request.end(RequestFailure(503, SHUTDOWN, "the worker is shutting down; please ask again"))

    def record_end(self, end: RequestEnd) -> None:
        """Count a request for an answer that has ended; others are not the worker's work."""
        if end.handler == GENERATE:
            self.metrics.record_end(end)

    def _ended(self, request: EngineRequest, outcome: Outcome) -> None:
        self.metrics.record_work(request, outcome)
        self.on_change()

    def _failed(self, error: BaseException) -> None:
        self.lifecycle.fail("the engine", error)
