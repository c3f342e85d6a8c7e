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
from llava.kv_cache import join_rows, take_row
from llava.model.loaded_model import LoadedModel
from llava.protocols import LlavaModel
from llava.serve.engine.policy import ServingPolicy
from llava.serve.engine.request import Outcome
from llava.serve.engine.request_queue import RequestQueue
from llava.serve.engine.sequence import RunningSequence, decoding_batch

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
        self._batch: RunningBatch | None = None  # of these sequences, once they have decoded as a batch
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)

    def start(self) -> None:
        """Start the engine's thread."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread works, or waits for work."""
        return self._thread.is_alive()

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
            options = self.policy.grant(request.generation.fields, self.queue.load(request))
            sequence = RunningSequence.prefill(self.loaded, request, options)
        except Exception as error:  # noqa: BLE001 - passed to the request, which reports it to client and log
            self.queue.done(request, error)
            return True
        self._rebuild_batch([*self._running, sequence])
        return True

    def _step(self) -> None:
        """Decode one token of every running sequence."""
        try:
            if self._batch is None:
                self._batch = RunningBatch(self.loaded.model, self._running)
            logits = self._batch.step()
        except Exception as error:  # noqa: BLE001 - it concerns every sequence of the batch
            failed, self._running, self._batch = self._running, [], None
            for sequence in failed:
                self.queue.done(sequence.request, error)
            return
        errors: dict[RunningSequence, Exception] = {}
        for sequence, row in zip(self._running, logits, strict=True):
            try:
                sequence.add(row[None], len(self._running))
            except Exception as error:  # noqa: BLE001 - such as a draw from logits that are not finite: its own matter
                errors[sequence] = error
        if errors:
            self._rebuild_batch([sequence for sequence in self._running if sequence not in errors])
        for sequence, cause in errors.items():
            self.queue.done(sequence.request, cause)

    def _retire_finished(self) -> None:
        """Remove sequences that have ended from the batch, and publish their answers."""
        ended = [sequence for sequence in self._running if sequence.ended]
        if not ended:
            return
        self._rebuild_batch([sequence for sequence in self._running if not sequence.ended])
        for sequence in ended:
            outcome: Outcome
            try:
                outcome = sequence.finish()
            except Exception as error:  # noqa: BLE001 - passed to the request
                outcome = error
            self.queue.done(sequence.request, outcome)

    def _rebuild_batch(self, running: list[RunningSequence]) -> None:
        """Change which sequences run: those that stay take their caches out of the batch."""
        if self._batch is not None:
            self._batch.split_cache(running)
        self._running, self._batch = running, None


class RunningBatch:
    """Sequences that decode as one batch, and their common KV cache, as long as none joins or leaves."""

    def __init__(self, model: LlavaModel, sequences: list[RunningSequence]) -> None:
        self.model, self.sequences = model, list(sequences)
        caches = [sequence.cache for sequence in sequences]
        lengths = [cache.length for cache in caches]
        batch = decoding_batch(model, [sequence.output for sequence in sequences], lengths)
        self.heads, self.forward_kwargs = batch.heads, batch.forward_kwargs
        self.cache = join_rows(caches, batch.heads, model.config.num_key_value_heads)
        self.lengths = torch.tensor(lengths, device=model.device)
        self.gaps = torch.tensor(batch.position_gaps or [0] * len(lengths), device=model.device)

    def step(self) -> torch.Tensor:
        """Return the logits (sequences, vocabulary), float32, of each sequence's next token."""
        device, width = self.model.device, self.cache.get_seq_length() + 1
        self.lengths = self.lengths + 1
        columns = torch.arange(width, device=device)
        outputs = self.model(
            input_ids=torch.tensor([[sequence.text.ids[-1]] for sequence in self.sequences], device=device),
            attention_mask=(columns >= width - self.lengths[:, None]).long(),
            position_ids=(self.lengths + self.gaps)[:, None] - 1,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
            **self.forward_kwargs,
        )
        logits: torch.Tensor = outputs.logits
        return logits[:, -1].float()

    def split_cache(self, staying: list[RunningSequence]) -> None:
        """Give those of ``staying`` that are in this batch their own caches back."""
        for row, (sequence, length) in enumerate(zip(self.sequences, self.lengths.tolist(), strict=True)):
            if sequence in staying:
                sequence.cache = take_row(self.cache, row, length, self.heads, sequence.cache.heads)


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
