"""Decides which image tokens of a batch are read: those that enter the decoder, and those of its later layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ada.budget import Budget
from ada.execution.late_tokens import LateTokens
from ada.image_tokens.amount import ImageTokens, ImageTokensLike, image_tokens_of_rows
from ada.image_tokens.encoded_images import images_of
from ada.image_tokens.encoding_cost import with_encoding_cost
from ada.image_tokens.late_selectors import late_selector
from ada.image_tokens.selection import (
    RowTokens,
    as_selected,
    check_columns_known,
    for_selectors,
    row_tokens,
    with_selected_tokens,
)
from ada.image_tokens.selector_names import SelectorNames
from llava.model.multimodal.embedded_batch import EmbeddedBatch


@dataclass(frozen=True)
class Reading:
    """What of a batch's prompts is read.

    batch: the prompts, without the image tokens that do not enter the decoder; rows: how many there are and stay.
    late: the selector of the tokens that later layers read, None where they read all that enter.
    """

    batch: EmbeddedBatch
    rows: Sequence[RowTokens]
    late: str | None = None

    def late_tokens(self, model: Any, batch: EmbeddedBatch, token_position: torch.Tensor | None) -> LateTokens | None:
        """Return what chooses later layers' tokens in one call; None where they read all that enter.

        batch: the prompts with their latency tokens, whose columns are ``token_position`` (B,), None without them.
        """
        if self.late is None or batch.image_spans is None:
            return None
        first_layer, selector = late_selector(self.late, model, token_position)
        return LateTokens(first_layer, batch.image_spans, [row.late for row in self.rows], selector)


class ReadsFewerTokens:
    """Mixed in before an adaptive model: leaves image tokens out of prompts."""

    def read_tokens(
        self,
        batch: EmbeddedBatch,
        image_tokens: ImageTokensLike | Sequence[ImageTokensLike] | None,
        token_selector: str | None,
        budgets: Sequence[Budget | None],
        padding_side: str = "left",
    ) -> Reading:
        """Return what of ``batch`` is read; the arguments are as ``generate`` takes them.

        Rows are padded on ``padding_side``. Raises OptionError for amounts or selectors that the model cannot follow.
        """
        amounts: Sequence[ImageTokens] = image_tokens_of_rows(image_tokens, len(batch.embeds))
        check_columns_known(batch, amounts)
        names = SelectorNames.of(token_selector, self)
        rows = row_tokens(batch, for_selectors(amounts, names))
        batch = with_selected_tokens(batch, rows, names.front, padding_side)
        rows = with_encoding_cost(self, as_selected(batch, rows), images_of(batch), names.front)
        late = names.late if any(row.late != row.front for row in rows) else None
        return Reading(batch, rows, late)
