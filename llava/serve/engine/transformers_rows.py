"""Decodes rows with the model's own forward: their caches are joined into one batch's while no row joins or leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from llava.kv_cache import DecodingBatch, RowCache, join_rows, take_row
from llava.plugins import hooks
from llava.protocols import LlavaModel


def decoding_batch(model: LlavaModel, outputs: Sequence[Any], lengths: Sequence[int]) -> DecodingBatch:
    """Return how generations of one row each decode as one batch: as a plug-in says, or as the model is.

    outputs: what ``generate(..., return_dict_in_generate=True)`` returned for each; lengths: positions in each one's
    cache.
    """
    batch: DecodingBatch | None = hooks().decoding_batch(model=model, outputs=outputs, lengths=lengths)
    return DecodingBatch([None] * model.config.num_hidden_layers) if batch is None else batch


@dataclass(eq=False)
class CachedRow:
    """A row that has been read: what ``generate`` returned, and its KV cache while it is not in the batch's."""

    output: Any
    cache: RowCache


class TransformersRows:
    """A ``RowDecoder`` for any model."""

    def __init__(self, model: LlavaModel) -> None:
        self.model = model
        self.rows: list[CachedRow] = []
        self._batch: _Batch | None = None  # of these rows, once they have decoded as a batch

    def read(self, keywords: Mapping[str, Any]) -> tuple[Any, CachedRow]:
        """Read a prompt alone, and so under its own plan."""
        output = self.model.generate(**{**keywords, "max_new_tokens": 1})
        length = output.past_key_values.get_seq_length()
        heads = decoding_batch(self.model, [output], [length]).heads
        row = CachedRow(output, take_row(output.past_key_values, 0, length, heads, heads))
        output.past_key_values = None  # the row owns it now
        self._change([*self.rows, row])
        return output, row

    def step(self, rows: Sequence[CachedRow], tokens: Sequence[int]) -> torch.Tensor:
        """Decode the last token of each row."""
        if self._batch is None:
            self._batch = _Batch(self.model, self.rows)
        order = [self.rows.index(row) for row in rows]
        by_row = [token for _, token in sorted(zip(order, tokens, strict=True))]
        return self._batch.step(by_row)[order]

    def remove(self, row: CachedRow) -> None:
        """Let a row leave."""
        self._change([other for other in self.rows if other is not row])

    def clear(self) -> None:
        """Let all rows leave."""
        self.rows, self._batch = [], None

    def positions(self) -> int:
        """Return how many positions the rows' caches have."""
        rows, batch = self.rows, self._batch
        return sum(row.cache.length for row in rows) + (0 if batch is None else len(rows) * batch.steps)

    def _change(self, rows: list[CachedRow]) -> None:
        """Change which rows run: those that stay take their caches out of the batch."""
        if self._batch is not None:
            self._batch.split_cache(rows)
        self.rows, self._batch = rows, None


class _Batch:
    """Rows that decode as one batch, and their common KV cache, as long as none joins or leaves."""

    def __init__(self, model: LlavaModel, rows: list[CachedRow]) -> None:
        self.model, self.rows = model, list(rows)
        caches = [row.cache for row in rows]
        lengths = [cache.length for cache in caches]
        batch = decoding_batch(model, [row.output for row in rows], lengths)
        self.heads, self.forward_kwargs = batch.heads, batch.forward_kwargs
        self.cache = join_rows(caches, batch.heads, model.config.num_key_value_heads)
        for row in rows:  # which would keep what was copied
            row.cache = replace(row.cache, layers=())
        self.lengths = torch.tensor(lengths, device=model.device)
        self.gaps = torch.tensor(batch.position_gaps or [0] * len(lengths), device=model.device)
        self.steps = 0

    def step(self, tokens: Sequence[int]) -> torch.Tensor:
        """Return the logits (rows, vocabulary), float32, of what follows each row's last token."""
        device, width = self.model.device, self.cache.get_seq_length() + 1
        self.lengths = self.lengths + 1
        columns = torch.arange(width, device=device)
        outputs = self.model(
            input_ids=torch.tensor(tokens, device=device)[:, None],
            attention_mask=(columns >= width - self.lengths[:, None]).long(),
            position_ids=(self.lengths + self.gaps)[:, None] - 1,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
            **self.forward_kwargs,
        )
        self.steps += 1
        logits: torch.Tensor = outputs.logits
        return logits[:, -1].float()

    def split_cache(self, staying: list[CachedRow]) -> None:
        """Give those of ``staying`` that are in this batch their own caches back."""
        for index, (row, length) in enumerate(zip(self.rows, self.lengths.tolist(), strict=True)):
            if row in staying:
                row.cache = take_row(self.cache, index, length, self.heads, row.cache.heads)
