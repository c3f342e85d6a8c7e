"""What every engine does, and the engine that answers each request alone, in a thread for each slot."""

from __future__ import annotations

import threading
from typing import Protocol

from llava.generation import answer
from llava.model.loaded_model import LoadedModel
from llava.serve.engine.detokenizer import TokenWatcher, detokenizer_of
from llava.serve.engine.policy import ServingPolicy, granted_options
from llava.serve.engine.request import ABORT, STOP, EngineRequest, Finished, Outcome
from llava.serve.engine.request_queue import RequestQueue


class Engine(Protocol):
    """Takes requests from a ``RequestQueue`` until it is closed and empty.

    For each it calls ``request.begin()``, then ``granted_options`` with ``queue.load(request)``, then ``request.emit``
    as tokens come; it ends soon after ``request.cancelled_event`` is set, and calls ``queue.done`` with a ``Finished``
    or an exception. Its threads work within ``queue.guard()``: one that fails by itself ends all requests.
    """

    def start(self) -> None:
        """Start to take requests."""

    @property
    def alive(self) -> bool:
        """Whether the engine works, or waits for work."""

    def positions(self) -> int:
        """Return how many positions the running requests hold in KV caches. From any thread, at any time."""

    def join(self, timeout_s: float) -> bool:
        """Wait for the end of the work, which comes once the queue is closed; return whether it came."""


class ThreadsEngine:
    """An engine that runs one generation at a time in each of the queue's ``slots`` threads."""

    def __init__(self, loaded: LoadedModel, queue: RequestQueue, policy: ServingPolicy) -> None:
        self.loaded = loaded
        self.queue = queue
        self.policy = policy
        # Daemons: a process that gets a second signal does not wait for an answer.
        self._threads = [
            threading.Thread(target=self._work, name=f"engine-{slot}", daemon=True) for slot in range(queue.slots)
        ]

    def start(self) -> None:
        """Start the engine's threads."""
        for thread in self._threads:
            thread.start()

    @property
    def alive(self) -> bool:
        """Whether every thread works, or waits for work."""
        return all(thread.is_alive() for thread in self._threads)

    def positions(self) -> int:
        """Return how many positions the running requests have; image tokens that a plug-in leaves out are counted."""
        running = [request for request in self.queue.requests() if request.began is not None]
        return sum(request.generation.prompt_tokens + request.tokens for request in running)

    def join(self, timeout_s: float) -> bool:
        """Wait for the end of the work; return whether it came within ``timeout_s`` seconds."""
        for thread in self._threads:
            thread.join(timeout_s / len(self._threads))
        return not any(thread.is_alive() for thread in self._threads)

    def _work(self) -> None:
        with self.queue.guard():
            while (request := self.queue.take()) is not None:
                request.begin()
                outcome: Outcome
                try:
                    outcome = self._answer(request)
                except Exception as error:  # noqa: BLE001 - passed to the request, which reports it to client and log
                    outcome = error
                self.queue.done(request, outcome)

    def _answer(self, request: EngineRequest) -> Finished:
        loaded, generation = self.loaded, request.generation
        options = granted_options(self.policy, request, self.queue.load(request))
        text = detokenizer_of(loaded.tokenizer, generation)

        def on_token(token_id: int) -> bool:
            request.emit(text.add(token_id), len(text.ids))
            return text.stopped

        result = answer(
            loaded.model,
            loaded.tokenizer,
            loaded.image_processor,
            generation.prompt,
            generation.images,
            sampling=generation.sampling,
            options=options,
            stop_ids=text.stop_ids,
            criteria=[TokenWatcher(on_token)],
            cancelled=request.cancelled_event,
        )
        complete = text.finish()
        reason = STOP if text.stopped and result.finish_reason != ABORT else result.finish_reason
        return Finished(result, complete, reason, options)
