"""Selects, in an embedded batch, the image tokens that the decoder reads."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ada.image_tokens.amount import ALL, ImageTokens
from ada.image_tokens.kept import with_kept_tokens
from ada.image_tokens.selector_names import SelectorNames
from ada.image_tokens.selectors import Candidates, TokenSelector, selector_named
from llava.errors import OptionError
from llava.model.multimodal.embedded_batch import EmbeddedBatch


@dataclass(frozen=True)
class RowTokens:
    """How many tokens of each of a row's images there are, enter the decoder, and are read by its later layers.

    All are empty where it is not known where the row's image tokens are.
    """

    all: tuple[int, ...] = ()
    front: tuple[int, ...] = ()
    late: tuple[int, ...] = ()

    @property
    def left_out(self) -> int:
        """Image tokens that do not enter the decoder."""
        return sum(self.all) - sum(self.front)

    def to_json(self) -> dict[str, int]:
        """Return the sums over the row's images: ``all``, ``kept`` (those that enter) and ``late``."""
        return {"all": sum(self.all), "kept": sum(self.front), "late": sum(self.late)}

    def summary(self) -> str:
        """Return a few words for people."""
        late = "" if self.late == self.front else f", {sum(self.late)} in later layers"
        return f"image tokens {sum(self.front)}/{sum(self.all)}{late}"


NO_IMAGE_TOKENS = RowTokens()


def row_tokens(batch: EmbeddedBatch, amounts: Sequence[ImageTokens]) -> list[RowTokens]:
    """Return what stays of each row's images under its amount, which must not be ``auto``."""
    spans = [()] * len(amounts) if batch.image_spans is None else batch.image_spans
    rows = []
    for own, amount in zip(spans, amounts, strict=True):
        lengths = tuple(len(span) for span in own)
        front = tuple(amount.front.of(length) for length in lengths)
        late = front
        if amount.late is not None:
            late = tuple(min(amount.late.of(length), kept) for length, kept in zip(lengths, front, strict=True))
        rows.append(RowTokens(lengths, front, late))
    return rows


def for_selectors(amounts: Sequence[ImageTokens], names: SelectorNames) -> Sequence[ImageTokens]:
    """Return the amounts as the selectors are to use them: those of a late selector alone are of later layers."""
    if not names.late_alone:
        return amounts
    return [amount if amount.late or amount.auto else ImageTokens(ALL, amount.front) for amount in amounts]


def with_selected_tokens(
    batch: EmbeddedBatch, rows: Sequence[RowTokens], selector: str, padding_side: str = "left"
) -> EmbeddedBatch:
    """Return the batch with as many tokens of each image as ``rows`` say, chosen by the selector of that name.

    A batch of which all stays is returned as it is.
    """
    if batch.image_spans is None or all(row.front == row.all for row in rows):
        return batch
    choose = selector_named(selector)
    kept = [
        [
            _selected(embeds[span.start : span.end].detach(), keep, choose)
            for span, keep in zip(own, row.front, strict=True)
        ]
        for embeds, own, row in zip(batch.embeds, batch.image_spans, rows, strict=True)
    ]
    return with_kept_tokens(batch, kept, padding_side)


def check_columns_known(batch: EmbeddedBatch, amounts: Sequence[ImageTokens]) -> None:
    """Raise OptionError where tokens are to be left out and it is not known where those of images are."""
    if batch.image_spans is None and any(amount != ImageTokens() for amount in amounts):
        raise OptionError(
            "image tokens cannot be left out here: their columns in the prompt are not known; leave --image-tokens out"
        )


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
