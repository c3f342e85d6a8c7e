"""Decodes the rows of a server's batch: in the engine's slots, or by transformers where the engine cannot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ada.engine.engine_rows import EngineRows
from ada.engine.row import Row
from llava.serve.engine.transformers_rows import CachedRow, TransformersRows


class AdaptiveTransformersRows(TransformersRows):
    """The shell's rows of an adaptive model."""

    def read(self, keywords: Mapping[str, Any]) -> tuple[Any, CachedRow]:
        """Read a prompt alone, planned with the tokens that its answer may have."""
        return super().read({**keywords, **limit_keyword(keywords)})


class EngineRowDecoder:
    """The shell's ``RowDecoder`` on ``EngineRows``: each row under its own plan."""

    def __init__(self, model: Any, slots: int) -> None:
        self.model, self.num_slots = model, slots
        self.clear()

    def read(self, keywords: Mapping[str, Any]) -> tuple[Any, Row]:
        """Read a prompt into the next slot."""
        before = len(self.rows.rows)
        try:
            settings = {**keywords, "max_new_tokens": 1, **limit_keyword(keywords)}
            output = self.model.generate(**settings, engine="ada", running=self.rows)
        except BaseException:
            for row in self.rows.rows[before:]:
                self.rows.remove(row)
            raise
        return output, self.rows.rows[-1]

    def step(self, rows: Sequence[Row], tokens: Sequence[int]) -> torch.Tensor:
        """Decode the last token of each row."""
        by_slot = torch.empty(len(rows), dtype=torch.long)
        order = torch.tensor([row.slot for row in rows])
        by_slot[order] = torch.tensor(tokens)
        return self.rows.step(by_slot.to(self.model.device))[order.to(self.model.device)]

    def remove(self, row: Row) -> None:
        """Let a row leave."""
        self.rows.remove(row)

    def positions(self) -> int:
        """Return how many columns the rows have filled, each in the layer that has read most of its image tokens."""
        return sum(max(row.columns) for row in tuple(self.rows.rows))

    @torch.inference_mode(False)
    @torch.no_grad()
    def clear(self) -> None:
        """Let all rows leave, and their memory."""
        self.rows = EngineRows(self.model, self.num_slots, self.model.get_input_embeddings().weight)


def limit_keyword(keywords: Mapping[str, Any]) -> dict[str, int]:
    """Return the keyword of ``generate`` for the tokens that an answer may have, of which a call reads the first."""
    return {"answer_limit": keywords["max_new_tokens"]} if "max_new_tokens" in keywords else {}
