"""Continuous batching: requests are read one by one, and answer side by side.

Prefill is bound by arithmetic and gains little from company; it runs alone, under the request's own plan. A decode step
is bound by reading the weights, which a batch does once for all rows. Between two steps at most one request joins, so
that a crowd at the door does not silence those who are being answered.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

import torch

from llava.errors import OptionError
from llava.kv_cache import join_rows, take_row
from llava.model.loaded_model import LoadedModel
from llava.serve.engine.policy import ServingPolicy
from llava.serve.engine.request import EngineRequest
from llava.serve.engine.request_queue import RequestQueue
from llava.serve.engine.sequence import RunningSequence, together

log = logging.getLogger(__name__)

# Of a generation config, what reads the tokens so far in ways that only ``generate`` knows: name -> neutral values.
NOT_BATCHED = {"repetition_penalty": (None, 1.0), "no_repeat_ngram_size": (None, 0), "num_beams": (None, 1)}


class BatchEngine:
    """Up to the queue's ``slots`` rows in one running batch, in one thread."""

    def __init__(self, loaded: LoadedModel, queue: RequestQueue, policy: ServingPolicy) -> None:
        refuse_unbatchable(loaded.model)
        self.loaded, self.queue, self.policy = loaded, queue, policy
        self._rows: list[RunningSequence] = []
        self._batch: Batch | None = None  # of these rows, once they have decoded together
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def join(self, timeout_s: float) -> bool:
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @torch.no_grad()
    def _work(self) -> None:
        while self._admit() or self._rows:
            self._retire_finished()
            if self._rows:
                self._step()
            self._retire_finished()

    def _admit(self) -> bool:
        """Let the next job in where there is room; with nothing else to do, wait for it. Whether one came."""
        if len(self._rows) >= self.queue.slots:
            return False
        job = self.queue.take_now() if self._rows else self.queue.take()
        if job is None:
            return False
        job.begin()
        try:
            options = self.policy.grant(job.question.fields, self.queue.load(job))
            row = RunningSequence.prefill(self.loaded, job, options)
        except Exception as error:  # noqa: BLE001 - handed to the request, which tells client and log
            self.queue.done(job, error)
            return True
        self._rebuild_batch([*self._rows, row])
        return True

    def _step(self) -> None:
        """One token for every row."""
        try:
            if self._batch is None:
                self._batch = Batch(self.loaded.model, self._rows)
            scores = self._batch.step()
            for row, its_scores in zip(self._rows, scores, strict=True):
                row.add(its_scores[None], len(self._rows))
        except Exception as error:  # noqa: BLE001 - it hit them all
            jobs: list[EngineRequest] = [row.job for row in self._rows]
            self._rows, self._batch = [], None
            for job in jobs:
                self.queue.done(job, error)

    def _retire_finished(self) -> None:
        """Rows that have ended leave."""
        ended = [row for row in self._rows if row.ended]
        if not ended:
            return
        self._rebuild_batch([row for row in self._rows if not row.ended])
        for row in ended:
            try:
                outcome: Any = row.finished()
            except Exception as error:  # noqa: BLE001 - handed to the request
                outcome = error
            self.queue.done(row.job, outcome)

    def _rebuild_batch(self, rows: list[RunningSequence]) -> None:
        """Other rows from here on: those that stay take their caches out of the batch."""
        if self._batch is not None:
            self._batch.split_cache(rows)
        self._rows, self._batch = rows, None


class Batch:
    """Rows that decode together, and their common cache, as long as none joins or leaves."""

    def __init__(self, model: Any, rows: list[RunningSequence]) -> None:
        self.model, self.rows = model, list(rows)
        way = together(model, [row.output for row in rows])
        self.heads, self.keywords = way.heads, way.keywords
        self.cache = join_rows([row.cache for row in rows], way.heads, model.config.num_key_value_heads)
        self.lengths = torch.tensor([row.cache.length for row in rows], device=model.device)

    def step(self) -> torch.Tensor:
        """Scores (rows, vocabulary), float32, of each row's next token."""
        device, width = self.model.device, self.cache.get_seq_length() + 1
        self.lengths = self.lengths + 1
        columns = torch.arange(width, device=device)
        outputs = self.model(
            input_ids=torch.tensor([[row.text.ids[-1]] for row in self.rows], device=device),
            attention_mask=(columns >= width - self.lengths[:, None]).long(),
            position_ids=self.lengths[:, None] - 1,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
            **self.keywords,
        )
        return outputs.logits[:, -1].float()

    def split_cache(self, rows: list[RunningSequence]) -> None:
        """Give those of ``rows`` that are in this batch their caches."""
        for place, (row, length) in enumerate(zip(self.rows, self.lengths.tolist(), strict=True)):
            if row in rows:
                row.cache = take_row(self.cache, place, length, self.heads, row.cache.heads)


def refuse_unbatchable(model: Any) -> None:
    """Raise OptionError for a model whose answers a batch would change."""
    for name, neutral in NOT_BATCHED.items():
        value = getattr(model.generation_config, name, None)
        if value not in neutral:
            raise OptionError(
                f"the model's generation config has {name} {value}, which batches do not know; give --engine threads"
            )
    if getattr(model.config, "sliding_window", None):
        raise OptionError("the model's attention slides a window, which batches do not know; give --engine threads")
