"""Selects, in an embedded batch, the image tokens that the decoder reads."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch

from ada.image_tokens.amount import ALL, ImageTokens, ImageTokensLike, image_tokens_of_rows
from ada.image_tokens.kept import Kept, with_kept_tokens
from ada.image_tokens.selectors import DEFAULT_SELECTOR, Candidates, TokenSelector, selector_named
from llava.model.multimodal.embedded_batch import EmbeddedBatch


def selected(
    batch: EmbeddedBatch,
    image_tokens: ImageTokensLike | Sequence[ImageTokensLike] | None,
    token_selector: str | None,
    padding_side: str = "left",
) -> EmbeddedBatch:
    """Return the batch with the image tokens that a call asks for, as ``generate`` takes its arguments."""
    amounts = image_tokens_of_rows(image_tokens, len(batch.embeds))
    return with_selected_tokens(batch, amounts, selector_named(token_selector or DEFAULT_SELECTOR), padding_side)


def with_selected_tokens(
    batch: EmbeddedBatch, amounts: Sequence[ImageTokens], selector: TokenSelector, padding_side: str = "left"
) -> EmbeddedBatch:
    """Return the batch with as many tokens of each image as its row's amount says, chosen by ``selector``.

    A batch of which all stays is returned as it is. Raises OptionError where the places of images are not known.
    """
    if all(amount.front == ALL for amount in amounts):
        return batch
    if batch.image_spans is None:
        return with_kept_tokens(batch, [], padding_side)  # which says so
    spans = batch.image_spans
    if all(amount.front.of(len(span)) == len(span) for row, amount in zip(spans, amounts, strict=True) for span in row):
        return batch
    kept: Kept = [
        [_selected(row[span.start : span.end].detach(), amount.front.of(len(span)), selector) for span in own]
        for row, own, amount in zip(batch.embeds, spans, amounts, strict=True)
    ]
    return with_kept_tokens(batch, kept, padding_side)


def _selected(features: torch.Tensor, keep: int, selector: TokenSelector) -> torch.Tensor:
    if keep == len(features):
        return torch.arange(keep, device=features.device)
    return selector(Candidates(features, cells_of(len(features)).to(features.device)), keep)


def cells_of(tokens: int) -> torch.Tensor:
    """Return row and column (n, 2) of each of an image's tokens, which are read line by line.

    Those of an image that is no square of patches, as one of several crops, are taken for one line.
    """
    side = math.isqrt(tokens)
    rows, columns = (side, side) if side * side == tokens else (1, tokens)
    return torch.tensor(list(itertools.product(range(rows), range(columns))), dtype=torch.float32)
