"""Continuous batching: requests are prefilled one by one and decoded as one batch.

Prefill is compute-bound and gains little from a batch; it runs alone, under the request's own plan. A decode step is
bound by reading the weights, which a batch does once for all sequences. At most one request joins between two steps, so
a burst of prefills cannot starve running decodes.
"""

from __future__ import annotations

import threading
from typing import Any

import torch

from llava.errors import OptionError
from llava.model.loaded_model import LoadedModel
from llava.protocols import LlavaModel
from llava.serve.engine.policy import ServingPolicy, granted_options
from llava.serve.engine.request import Outcome
from llava.serve.engine.request_queue import RequestQueue
from llava.serve.engine.row_decoder import row_decoder
from llava.serve.engine.sequence import RunningSequence

# Settings of a generation config that depend on the tokens so far in ways only ``generate`` knows: neutral values.
NOT_BATCHED: dict[str, tuple[Any, ...]] = {
    "repetition_penalty": (None, 1.0),
    "no_repeat_ngram_size": (None, 0),
    "num_beams": (None, 1),
    "min_length": (None, 0),
    "min_new_tokens": (None, 0),
    "bad_words_ids": (None, []),
    "suppress_tokens": (None, []),
    "begin_suppress_tokens": (None, []),
    "sequence_bias": (None, {}, []),
    "forced_bos_token_id": (None,),
    "forced_eos_token_id": (None,),
    "exponential_decay_length_penalty": (None,),
    "guidance_scale": (None, 1.0),
}


class BatchEngine:
    """An engine that decodes up to the queue's ``slots`` sequences as one batch, in one thread."""

    def __init__(self, loaded: LoadedModel, queue: RequestQueue, policy: ServingPolicy) -> None:
        refuse_unbatchable(loaded.model)
        self.loaded, self.queue, self.policy = loaded, queue, policy
        self._running: list[RunningSequence] = []
        self._decoder = row_decoder(loaded.model, queue.slots)
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)

    def start(self) -> None:
        """Start the engine's thread."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread works, or waits for work."""
        return self._thread.is_alive()

    def positions(self) -> int:
        """Return how many positions the rows hold in the KV cache."""
        return self._decoder.positions()

    def join(self, timeout_s: float) -> bool:
        """Wait for the end of the work; return whether it came within ``timeout_s`` seconds."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @torch.no_grad()
    def _work(self) -> None:
        with self.queue.guard():
            while self._admit() or self._running:
                self._retire_finished()
                if self._running:
                    self._step()
                self._retire_finished()

    def _admit(self) -> bool:
        """Prefill the next request where a slot is free, waiting for one when idle; return whether one came."""
        if len(self._running) >= self.queue.slots:
            return False
        request = self.queue.take_now() if self._running else self.queue.take()
        if request is None:
            return False
        request.begin()
        try:
            options = granted_options(self.policy, request, self.queue.load(request))
            sequence = RunningSequence.prefill(self.loaded, self._decoder, request, options)
        except Exception as error:  # noqa: BLE001 - passed to the request, which reports it to client and log
            self.queue.done(request, error)
            return True
        self._running.append(sequence)
        return True

    def _step(self) -> None:
        """Decode one token of every running sequence."""
        try:
            tokens = [sequence.text.ids[-1] for sequence in self._running]
            logits = self._decoder.step([sequence.row for sequence in self._running], tokens)
        except Exception as error:  # noqa: BLE001 - it concerns every sequence of the batch
            failed, self._running = self._running, []
            self._decoder.clear()
            for sequence in failed:
                self.queue.done(sequence.request, error)
            return
        errors: dict[RunningSequence, Exception] = {}
        for sequence, row in zip(self._running, logits, strict=True):
            try:
                sequence.add(row[None], len(self._running))
            except Exception as error:  # noqa: BLE001 - such as a draw from logits that are not finite: its own matter
                errors[sequence] = error
        for sequence, cause in errors.items():
            self._remove(sequence)
            self.queue.done(sequence.request, cause)

    def _retire_finished(self) -> None:
        """Remove sequences that have ended from the batch, and publish their answers."""
        for sequence in [sequence for sequence in self._running if sequence.ended]:
            self._remove(sequence)
            outcome: Outcome
            try:
                outcome = sequence.finish()
            except Exception as error:  # noqa: BLE001 - passed to the request
                outcome = error
            self.queue.done(sequence.request, outcome)

    def _remove(self, sequence: RunningSequence) -> None:
        self._running.remove(sequence)
        self._decoder.remove(sequence.row)


def refuse_unbatchable(model: LlavaModel) -> None:
    """Raise OptionError for a model whose answers would change in a batch."""
    for name, neutral in NOT_BATCHED.items():
        value = getattr(model.generation_config, name, None)
        if value not in neutral:
            raise OptionError(
                f"the model's generation config sets {name} to {value}, which --engine batch does not support; "
                "give --engine threads"
            )
    if getattr(model.config, "sliding_window", None):
        raise OptionError(
            "the model uses sliding-window attention, which --engine batch does not support; give --engine threads"
        )
