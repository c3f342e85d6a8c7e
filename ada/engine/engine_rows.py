"""Keeps rows in slots and decodes them: a row joins by being read into the next slot, and leaves whenever it likes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from transformers import DynamicCache

from ada.engine.batch_prefill import adopt
from ada.engine.decoder import Decoder
from ada.engine.gated.usable import gated_step
from ada.engine.kv_slots import KVSlots, kv_dtype
from ada.engine.prefill import prefill
from ada.engine.rotary import RotaryTable
from ada.engine.row import Row
from ada.engine.step import DecodeStep
from ada.execution.call_state import Execution
from ada.execution.layer_weights import LayerWeights
from ada.latency.latency_model import Workload
from ada.latency.pacer import Pacer
from ada.reuse.call_reuse import CallReuse
from ada.scheduling.execution_plan import ExecutionPlan
from llava.model.multimodal.embedded_batch import EmbeddedBatch
from llava.model.sequence_length import context_length


class EngineRows:
    """The running rows of one model, of up to ``slots`` sequences."""

    def __init__(self, model: Any, slots: int, like: torch.Tensor) -> None:
        self.decoder = Decoder(model, model.narrow_cache)
        kept, sizes = torch.empty(0, dtype=kv_dtype(like.dtype, like.device), device=like.device), self.decoder
        longest = context_length(model.config)
        self.slots = KVSlots(len(sizes.layers), slots, sizes.kv_heads, sizes.head_dim, kept, longest)
        self.table = RotaryTable(model.model.rotary_emb, like)
        self.rows: list[Row] = []
        # Joining moves weights, and the kernels' graphs know where they are: join first, and see whether they stay.
        self._dense = self._dense_weights() if like.device.type == "cuda" else []
        self.gated = gated_step(model, self.slots)
        self._step: DecodeStep | None = None  # of these rows, until one joins or leaves

    def read(self, batch: EmbeddedBatch, execution: Execution, reuse: CallReuse | None = None) -> torch.Tensor:
        """Read prompts, padded on the left, into the next slots; return the logits (B, vocabulary) that follow.

        A prompt alone runs here, as ``prefill`` says; several are read by the model's own forward, whose cache is taken
        over.
        """
        self._step = None
        slot = len(self.rows)
        mask = batch.attention_mask
        if len(batch.embeds) == 1 and (mask is None or bool(mask.all())):
            once = None if self.gated is None else self.decoder.cut
            row, logits = prefill(self.decoder, self.slots, slot, self.table, batch, execution, once, reuse)
            self.rows.append(row)
            return logits
        batch, cache = _with_positions(batch), DynamicCache()
        outputs = self.decoder.model(
            **batch.inputs(), past_key_values=cache, use_cache=True, execution=execution, logits_to_keep=1
        )
        self.rows += adopt(self.slots, slot, cache, batch, execution)
        read: torch.Tensor = outputs.logits[:, -1]
        return read.float()

    @torch.no_grad()
    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        """Decode ``tokens`` (R,), the rows' last ones; return the logits (R, vocabulary), float32, of the next ones.

        Rows with a pacer may shrink before.
        """
        for row in self.rows:
            if row.pacer is not None:
                self._pace(row, row.pacer)
        if self.gated is not None:
            return self.gated.step(self.rows, tokens)
        if self._step is None:
            self._step = DecodeStep(self.decoder, self.slots, self.table, self.rows)
        return self._step(tokens)

    def _pace(self, row: Row, pacer: Pacer) -> None:
        """Let a row go on under a smaller plan where its promises need it."""
        # Layers on which rows' plans differ run dense, unless kernels leave out what no row has on: a row that shrinks
        # alone loses units, and no step is shorter.
        fixed = len(self.rows) > 1 and self.gated is None
        context = sum(max(other.columns) for other in self.rows)
        step = Workload(context, self.decoder.model.units.tunable, 0, rows=len(self.rows))
        plan = pacer.next_plan(step, fixed)
        if plan is not None:
            self.shrink(row, plan)

    def fits(self, count: int, like: torch.Tensor) -> bool:
        """Return whether there are slots for ``count`` sequences, of the dtype and device of ``like``.

        And whether the weights are still those that the rows were made with.
        """
        keys, _ = self.slots.layers[0]
        same_kind = (keys.dtype, keys.device) == (kv_dtype(like.dtype, like.device), like.device)
        if count > len(keys) or not same_kind:
            return False
        return all(now is before for now, before in zip(self._dense_weights(), self._dense, strict=True))

    def _dense_weights(self) -> list[LayerWeights]:
        return [self.decoder.dense(index) for index in range(len(self.decoder.layers))]

    def clear(self) -> None:
        """Let all rows leave."""
        for row in self.rows:
            _finish(row)
        self.rows, self._step = [], None

    def shrink(self, row: Row, plan: ExecutionPlan) -> None:
        """Let a row go on under a smaller plan; its slot keeps the heads that this one reads.

        Its tokens are those of a cache that keeps all keys: what a smaller plan reads exists. Raises ValueError for a
        plan that is not within the row's own, as keys would be missing.
        """
        if not plan.is_within(row.plan):
            raise ValueError("the plan runs what the row's own does not, of which there are no keys")
        for index, (own, kept) in enumerate(zip(row.held, plan.layers, strict=True)):
            if tuple(own) != kept.heads:
                self.slots.keep_heads(index, row.slot, [own.index(head) for head in kept.heads])
        row.continue_under(plan)
        self._step = None
        if self.gated is not None:
            self.gated.forget(row.slot)

    def remove(self, row: Row) -> None:
        """Free a row's slot; the last row takes it."""
        self._step = None
        _finish(row)
        last = self.rows.pop()
        if last is not row:
            self.slots.move(last.slot, row.slot)
            last.slot = row.slot
            self.rows[row.slot] = last


def _finish(row: Row) -> None:
    if row.pacer is not None:
        row.pacer.finish()


def _with_positions(batch: EmbeddedBatch) -> EmbeddedBatch:
    """Number the positions of padded rows from their own first one on."""
    if batch.position_ids is not None or batch.attention_mask is None:
        return batch
    return replace(batch, position_ids=(batch.attention_mask.long().cumsum(dim=1) - 1).clamp(min=0))
