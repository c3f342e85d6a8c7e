"""One request on its way through a worker: checked, queued, answered by an engine, read by the server."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from llava.generation import Answer, SamplingParams
from llava.model.multimodal.image_pipeline import PreparedImages
from llava.serve.engine.promise import UNPROMISED_DUE_S, Promise

STOP, LENGTH, ABORT = "stop", "length", "abort"  # why an answer ended: as vLLM and OpenAI's API name it


@dataclass(frozen=True)
class GenerationRequest:
    """A checked request.

    prompt: what the model reads. images: as pixels, one for each image tag of the prompt. stop: texts that end the
    answer. fields: the body's other fields by name, those of plug-ins included, ``num_images`` and
    ``num_crops``, which the vision tower sees. prompt_tokens: positions of the prompt in the sequence, all image tokens
    included: those that a plug-in leaves out keep theirs. echo: the prompt as the client sent it, with which every
    chunk begins. promise: of time, where there is one.
    """

    prompt: str
    images: PreparedImages
    sampling: SamplingParams
    stop: tuple[str, ...]
    fields: Mapping[str, Any]
    prompt_tokens: int
    echo: str
    promise: Promise | None = None


@dataclass(frozen=True)
class Finished:
    """A finished answer.

    text: the answer without prompt and stop text. options: what the policies granted. mean_batch_size: sequences that
    shared a decode step of this answer, on average.
    """

    answer: Answer
    text: str
    finish_reason: str
    options: Mapping[str, Any]
    mean_batch_size: float = 1.0


Outcome = Finished | BaseException


@dataclass(eq=False)
class EngineRequest:
    """The state of a request that an engine's thread and the server's event loop share.

    The engine's thread calls ``begin`` and ``emit``, its queue ``end``. The server reads ``text``, ``tokens`` and
    ``outcome`` whenever ``wake`` was called, and may call ``cancel``. Only the newest text is kept, so a client that
    reads slowly costs no memory and delays nobody. Times are ``time.perf_counter`` seconds.
    """

    generation: GenerationRequest
    request_id: str
    wake: Callable[[], None] = lambda: None
    arrived: float = field(default_factory=time.perf_counter)
    queued: float | None = None  # since when it is in the queue, after its images were read
    began: float | None = None
    ended: float | None = None
    text: str = ""
    tokens: int = 0
    first_token: float | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)  # what plug-ins have decided so far: replaced, never changed
    outcome: Outcome | None = None
    cancelled_event: threading.Event = field(default_factory=threading.Event)
    cancel_reason: str | None = None

    def begin(self) -> None:
        """Note that an engine has started on the request."""
        self.began = time.perf_counter()
        self.wake()

    def emit(self, text: str, tokens: int) -> None:
        """Publish the answer so far: all of its text, of ``tokens`` tokens."""
        self.first_token = self.first_token or time.perf_counter()
        self.text, self.tokens = text, tokens
        self.wake()

    def note(self, fields: Mapping[str, Any]) -> None:
        """Publish JSON-ready fields about the answer before it is finished."""
        self.notes = {**self.notes, **fields}
        self.wake()

    def end(self, outcome: Outcome) -> None:
        """Publish the finished answer, or the error. Nothing is emitted after it."""
        self.ended = self.ended or time.perf_counter()
        self.outcome = outcome
        self.wake()

    def cancel(self, reason: str) -> None:
        """Ask the engine to stop at its next token. The first reason given is kept."""
        if not self.cancelled_event.is_set():
            self.cancel_reason = reason
            self.cancelled_event.set()

    @property
    def due(self) -> float:
        """When its answer is due, by which the queue is ordered."""
        promise = self.generation.promise
        return self.arrived + (promise.due_s if promise is not None and promise.is_due else UNPROMISED_DUE_S)

    @property
    def queue_s(self) -> float:
        """Seconds from arrival to the engine's start, or to now while the request waits."""
        return (self.began or self.ended or time.perf_counter()) - self.arrived

    @property
    def waited_s(self) -> float:
        """Seconds in the queue, to the engine's start, or to now; 0 for a request that was never put there."""
        return 0.0 if self.queued is None else self.queue_s - (self.queued - self.arrived)

    def first_token_s(self, finished: Finished) -> float:
        """Return the seconds from arrival to the first token, the time in the queue included."""
        return self.queue_s + finished.answer.timing["time_to_first_token_ms"] / 1000

    @property
    def total_s(self) -> float:
        """Seconds from arrival to the end, or to now before it."""
        return (self.ended or time.perf_counter()) - self.arrived
