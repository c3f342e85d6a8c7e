"""What answers the queue's jobs, in threads of its own: one by one here, as one running batch in ``batch_engine``."""

from __future__ import annotations

import logging
import threading
from typing import Protocol

from llava.generation import answer
from llava.model.loaded_model import LoadedModel
from llava.serve.engine.detokenizer import TextStream, TokenStreamer
from llava.serve.engine.policy import ServingPolicy
from llava.serve.engine.request import ABORT, STOP, EngineRequest, Finished, Outcome
from llava.serve.engine.request_queue import RequestQueue

log = logging.getLogger(__name__)


class Engine(Protocol):
    """Takes jobs from a ``RequestQueue`` until it is closed and empty.

    For each: ``job.begin()``; ``policy.grant`` with ``queue.load(job)``; ``job.say`` as tokens come; an end soon
    after ``job.cancelled_event``; ``queue.done`` with a ``Finished`` or an exception.
    """

    def start(self) -> None:
        """Begin to work."""

    @property
    def alive(self) -> bool:
        """Whether it works, or waits for work."""

    def join(self, timeout_s: float) -> bool:
        """Wait for the end of its work, which comes once the queue is closed; whether it came."""


class ThreadsEngine:
    """One generation at a time in each of the queue's ``slots`` threads."""

    def __init__(self, loaded: LoadedModel, queue: RequestQueue, policy: ServingPolicy) -> None:
        self.loaded = loaded
        self.queue = queue
        self.policy = policy
        # Daemons: a process that is told to end twice does not wait for an answer.
        self._threads = [
            threading.Thread(target=self._work, name=f"engine-{slot}", daemon=True) for slot in range(queue.slots)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    @property
    def alive(self) -> bool:
        return all(thread.is_alive() for thread in self._threads)

    def join(self, timeout_s: float) -> bool:
        for thread in self._threads:
            thread.join(timeout_s / len(self._threads))
        return not any(thread.is_alive() for thread in self._threads)

    def _work(self) -> None:
        while (job := self.queue.take()) is not None:
            job.begin()
            outcome: Outcome
            try:
                outcome = self._answer(job)
            except Exception as error:  # noqa: BLE001 - handed to the request, which tells client and log
                outcome = error
            self.queue.done(job, outcome)

    def _answer(self, job: EngineRequest) -> Finished:
        loaded, question = self.loaded, job.question
        options = self.policy.grant(question.fields, self.queue.load(job))
        text = TextStream(loaded.tokenizer, question.stop)

        def on_token(token_id: int) -> None:
            shown = text.add(token_id)
            if text.stopped:
                job.cancel(STOP)
            job.emit(shown, len(text.ids))

        result = answer(
            loaded.model,
            loaded.tokenizer,
            loaded.image_processor,
            question.prompt,
            question.images,
            sampling=question.sampling,
            options=options,
            stop=question.stop,
            streamer=TokenStreamer(on_token),
            cancelled=job.cancelled_event,
        )
        whole = text.finished()
        reason = result.finish_reason
        if reason == ABORT and job.halt_reason == STOP:
            reason = STOP
        return Finished(result, whole, reason, options)
