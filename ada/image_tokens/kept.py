"""Leaves image tokens out of an embedded batch; those that stay keep their positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from llava.constants import IGNORE_INDEX
from llava.errors import OptionError
from llava.model.multimodal.embedded_batch import EmbeddedBatch
from llava.model.multimodal.image_spans import ImageSpan, Spans

Kept = Sequence[Sequence[torch.Tensor]]
"""For each row and each of its images, the indices of the tokens that stay, in ascending order."""


def with_kept_tokens(batch: EmbeddedBatch, kept: Kept, padding_side: str = "left") -> EmbeddedBatch:
    """Return the batch without the image tokens that are not ``kept``; rows are padded on ``padding_side``.

    Positions have gaps where tokens were left out: a place in the image is read off them. Raises OptionError where the
    batch does not say where its image tokens stand.
    """
    if batch.image_spans is None:
        raise OptionError("image tokens cannot be left out here: their places in the prompt are not known")
    device, given = batch.embeds.device, batch.attention_mask
    mask = batch.embeds.new_ones(batch.embeds.shape[:2], dtype=torch.bool) if given is None else given.bool()
    positions = batch.position_ids
    if positions is None:
        positions = (mask.long().cumsum(dim=1) - 1).clamp(min=0)
    stays = mask.clone()
    for row, (spans, own) in enumerate(zip(batch.image_spans, kept, strict=True)):
        for span, indices in zip(spans, own, strict=True):
            stays[row, span.start : span.end] = False
            stays[row, span.start + indices.to(device)] = True
    order, real = _columns(stays, padding_side)
    embeds = batch.embeds.gather(1, order[..., None].expand(-1, -1, batch.embeds.shape[2]))
    labels = batch.labels
    if labels is not None:
        labels = labels.gather(1, order).masked_fill(~real, IGNORE_INDEX)
    return replace(
        batch,
        embeds=embeds * real[..., None],
        # Always stated: without a mask, transformers takes a gap in the positions for the start of another sequence.
        attention_mask=real.long() if given is None else real.to(given.dtype),
        position_ids=positions.gather(1, order) * real,
        labels=labels,
        image_spans=_new_spans(batch.image_spans, stays.cpu(), real.cpu()),
    )


def position_gaps(batch: EmbeddedBatch) -> list[int]:
    """Return for each row, padded on the left, by how much its next position is above the number of its columns."""
    if batch.position_ids is None:
        return [0] * len(batch.embeds)
    mask = batch.attention_mask
    columns = batch.width if mask is None else (mask != 0).sum(dim=1)
    gaps: list[int] = (batch.position_ids[:, -1] + 1 - columns).tolist()
    return gaps


def kept_indices(batch: EmbeddedBatch, totals: Sequence[Sequence[int]]) -> list[list[list[int]]]:
    """Return which tokens of each row's images a batch has, by their positions; rows are padded on the left.

    totals: how many positions each row's images take, tokens that were left out included; none where they are not
    known.
    """
    spans = batch.image_spans or [[] for _ in totals]
    positions = None if batch.position_ids is None else batch.position_ids.tolist()
    first_columns = [0] * len(totals) if batch.attention_mask is None else batch.attention_mask.argmax(dim=1).tolist()
    rows = []
    for row, (own, counts) in enumerate(zip(spans, totals, strict=True)):
        kept, text_and_images, column = [], 0, first_columns[row]  # text_and_images: the position of the next token
        for span, total in zip(own, counts, strict=True):
            text_and_images += span.start - column
            of_image = range(total) if positions is None else positions[row][span.start : span.end]
            kept.append([position - (0 if positions is None else text_and_images) for position in of_image])
            text_and_images, column = text_and_images + total, span.end
        rows.append(kept)
    return rows


def _columns(stays: torch.Tensor, padding_side: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return, for each new column, the old one (B, T'), and whether it is real (B, T').

    stays: (B, T), bool.
    """
    counts = stays.sum(dim=1)
    width = int(counts.max())
    # Stable: columns that stay come first, in their order.
    order = (~stays).int().argsort(dim=1, stable=True)[:, :width]
    real = torch.arange(width, device=stays.device)[None] < counts[:, None]
    if padding_side == "left":
        shift = (torch.arange(width, device=stays.device)[None] - (width - counts)[:, None]) % width
        order, real = order.gather(1, shift), real.gather(1, shift)
    return order, real


def _new_spans(spans: Spans, stays: torch.Tensor, real: torch.Tensor) -> list[list[ImageSpan]]:
    """Return where the images' kept tokens stand among the new columns.

    stays: (B, T), bool, the old columns that stay; real: (B, T'), bool, the new ones that are no padding.
    """
    moved = []
    for row, own in enumerate(spans):
        padding = int(real[row].int().argmax())
        before = [0, *stays[row].long().cumsum(dim=0).tolist()]  # columns that stay before each old one
        moved.append([ImageSpan(padding + before[span.start], padding + before[span.end]) for span in own])
    return moved
