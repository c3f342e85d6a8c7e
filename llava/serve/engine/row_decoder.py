"""Says how a batch engine runs its model: prompts are read one by one, and decoded as one batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch

from llava.plugins import hooks
from llava.protocols import LlavaModel
from llava.serve.engine.transformers_rows import TransformersRows


class RowDecoder(Protocol):
    """The running rows of one model, used by one thread; others may ask for ``positions``."""

    def read(self, keywords: Mapping[str, Any]) -> tuple[Any, Any]:
        """Read a prompt; return what ``generate(max_new_tokens=1)`` returns, and the row, which runs from now on.

        keywords: of ``generate``. Where it raises, the other rows go on.
        """

    def step(self, rows: Sequence[Any], tokens: Sequence[int]) -> torch.Tensor:
        """Decode the last token of each running row; return the logits (rows, vocabulary), float32, that follow."""

    def remove(self, row: Any) -> None:
        """Let a row leave."""

    def clear(self) -> None:
        """Let all rows leave, whatever state a step that failed has left."""

    def positions(self) -> int:
        """Return how many positions of the KV cache the rows have filled: of each row's longest layer, summed."""


def row_decoder(model: LlavaModel, slots: int) -> RowDecoder:
    """Return what decodes up to ``slots`` rows of a model: a plug-in's, or by transformers' forward."""
    found: RowDecoder | None = hooks().row_decoder(model=model, slots=slots)
    return TransformersRows(model) if found is None else found
