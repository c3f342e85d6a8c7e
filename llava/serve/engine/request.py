"""One request on its way through a worker: from the queue to an engine, which writes the answer here."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from llava.generation import Answer, SamplingParams

STOP, LENGTH, ABORT = "stop", "length", "abort"  # why an answer ended: as vLLM and OpenAI's API name it


@dataclass(frozen=True)
class GenerationRequest:
    """A checked request. ``prompt``: what the model reads; ``echo``: the client's own words of it, with which every
    chunk begins. ``fields``: the body's fields, plug-ins' among them. ``prompt_tokens`` counts the pictures' positions.
    """

    prompt: str
    images: tuple[Image.Image, ...]
    sampling: SamplingParams
    stop: tuple[str, ...]
    fields: Mapping[str, Any]
    prompt_tokens: int
    echo: str


@dataclass(frozen=True)
class Finished:
    """A finished answer. ``text`` has neither prompt nor stop text; ``options`` are what the policies granted;
    ``batch``: how many rows shared a decode step of it, on average."""

    answer: Answer
    text: str
    finish_reason: str
    options: Mapping[str, Any]
    batch: float = 1.0


Outcome = Finished | BaseException


@dataclass(eq=False)
class EngineRequest:
    """The two sides of a request: an engine's thread calls ``begin`` and ``say``, its queue ``end``; the server's loop
    reads ``text``, ``tokens`` and ``outcome`` whenever ``wake`` was called, and calls ``halt``.

    Only the newest text is kept, so a client that reads slowly costs no memory and holds up nobody. Times are
    ``time.perf_counter`` seconds.
    """

    question: GenerationRequest
    request_id: str
    wake: Callable[[], None] = lambda: None
    arrived: float = field(default_factory=time.perf_counter)
    began: float | None = None
    ended: float | None = None
    text: str = ""
    tokens: int = 0
    outcome: Outcome | None = None
    cancelled_event: threading.Event = field(default_factory=threading.Event)
    halt_reason: str | None = None

    def begin(self) -> None:
        """An engine starts on it."""
        self.began = time.perf_counter()
        self.wake()

    def emit(self, text: str, tokens: int) -> None:
        """The whole answer so far, of ``tokens`` tokens."""
        self.text, self.tokens = text, tokens
        self.wake()

    def end(self, outcome: Outcome) -> None:
        """The answer, or what went wrong. Nothing comes behind it."""
        self.ended = self.ended or time.perf_counter()
        self.outcome = outcome
        self.wake()

    def cancel(self, reason: str) -> None:
        """Ask the engine to stop at its next token. The first reason counts."""
        if not self.cancelled_event.is_set():
            self.halt_reason = reason
            self.cancelled_event.set()

    @property
    def queue_s(self) -> float:
        """Seconds that it waited."""
        return (self.began or self.ended or time.perf_counter()) - self.arrived

    def first_token_s(self, finished: Finished) -> float:
        """Seconds from arrival to the first token, the queue included."""
        return self.queue_s + finished.answer.timing["time_to_first_token_ms"] / 1000

    @property
    def total_s(self) -> float:
        """Seconds from arrival to the end."""
        return (self.ended or time.perf_counter()) - self.arrived
