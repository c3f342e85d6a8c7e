"""Describes images as they were encoded: their tokens' positions, where they are on the image, what the tower saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from ada.image_tokens.layout import cells_of
from llava.model.multimodal.embedded_batch import EmbeddedBatch


@dataclass(frozen=True)
class EncodedImage:
    """The n tokens of one image that the prompt has before any is left out.

    total: how many it has where it is encoded as it is; n is less where encoding itself makes them few. cells: (n, 2),
    row and column of each on the image, in any unit. positions: (n,), which of the image's positions they have,
    ascending; None for consecutive ones. class_attention: (n,), what the tower's class token gives to each; None where
    it was not read. sides: patches along a side of each crop that the tower saw, and projected: tokens that the
    projector gave; None where that is not as ever. merged_from: patches that a checkpoint trained on merged tokens has
    merged into these; None for others.
    """

    total: int
    cells: torch.Tensor
    positions: torch.Tensor | None = None
    class_attention: torch.Tensor | None = None
    sides: tuple[int, ...] | None = None
    projected: int | None = None
    merged_from: int | None = None

    def __len__(self) -> int:
        return len(self.cells)

    @property
    def width(self) -> int:
        """Positions that the image takes in the prompt, gaps included."""
        return self.total if self.positions is None else max(self.total, int(self.positions[-1]) + 1)


@dataclass(frozen=True)
class EncodedBatch(EmbeddedBatch):
    """An embedded batch that says how each row's images were encoded, in the order of ``image_spans``."""

    images: Sequence[Sequence[EncodedImage]] = ()


def with_images(batch: EmbeddedBatch, images: Sequence[Sequence[EncodedImage]]) -> EmbeddedBatch:
    """Return the batch with what each of its rows' images is."""
    return EncodedBatch(**vars(batch), images=images)


def images_of(batch: EmbeddedBatch) -> Sequence[Sequence[EncodedImage]]:
    """Return how each row's images were encoded; as squares of patches where the batch does not say it."""
    if isinstance(batch, EncodedBatch):
        return batch.images
    return [[EncodedImage(len(span), cells_of(len(span))) for span in spans] for spans in batch.image_spans or ()]


def with_gaps(batch: EmbeddedBatch) -> EmbeddedBatch:
    """Return the batch with gaps in its positions where encoding made an image's tokens few.

    What follows an image has the position that it has after all of the image's tokens.
    """
    rows = [list(zip(*row, strict=True)) for row in zip(batch.image_spans or (), images_of(batch), strict=True)]
    if all(image.positions is None for row in rows for _, image in row):
        return batch
    given = batch.attention_mask
    mask = batch.embeds.new_ones(batch.embeds.shape[:2], dtype=torch.long) if given is None else given
    known = mask.long().cumsum(dim=1) - 1 if batch.position_ids is None else batch.position_ids
    positions = known.clone()
    for row, images in enumerate(rows):
        for span, image in images:
            if image.positions is None or not len(span):
                continue
            own = image.positions[: len(span)].to(positions.device)
            positions[row, span.end :] += image.width - len(span)
            positions[row, span.start : span.end] = positions[row, span.start] + own
    positions = positions * mask.bool()
    # The mask is always stated: without one, transformers takes a gap for the start of another sequence.
    return replace(batch, attention_mask=mask, position_ids=positions)
