"""Finds where each image's tokens stand in the rows that enter the decoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from llava.constants import IMAGE_TOKEN_INDEX
from llava.errors import ImageError
from llava.model.multimodal.merge_inputs import features_by_row


@dataclass(frozen=True)
class ImageSpan:
    """The columns [start, end) of one image's tokens in a row."""

    start: int
    end: int

    def __len__(self) -> int:
        return self.end - self.start

    def moved(self, columns: int) -> ImageSpan:
        """Return the span ``columns`` to the right."""
        return ImageSpan(self.start + columns, self.end + columns)


Spans = Sequence[Sequence[ImageSpan]]
"""The spans of each row's images."""


def image_spans(
    input_ids: torch.Tensor,
    given: torch.Tensor | None,
    lengths: Sequence[int],
    mask: torch.Tensor | None,
    width: int,
    cut: bool = False,
) -> Spans | None:
    """Return where the images of each row stand, after their tokens have replaced their tags.

    input_ids: (B, t), with tags, and ``given`` (B, t) its mask. lengths: tokens of each image, row by row, those of
    rows without a tag among them. mask: (B, T) of the embedded rows, and ``width`` their T. cut: rows may have lost
    their ends. None where the lengths do not make up the rows, as where a method that makes image tokens was replaced.
    """
    real = torch.ones_like(input_ids, dtype=torch.bool) if given is None else given.bool()
    rows = [ids[keep] for ids, keep in zip(input_ids, real, strict=True)]
    tags = [(ids == IMAGE_TOKEN_INDEX).nonzero().flatten().tolist() for ids in rows]
    try:
        owned = features_by_row([len(found) for found in tags], lengths)
    except ImageError:  # several images for one tag, as a replaced method may merge them
        return None
    columns = torch.ones(len(rows), width, dtype=torch.bool) if mask is None else mask.bool().cpu()
    spans = []
    for ids, found, own, kept in zip(rows, tags, owned, columns, strict=True):
        start, total = int(kept.int().argmax()), int(kept.sum())
        own = own[: len(found)]  # without the image of a row that has no tag
        if not cut and len(ids) - len(found) + sum(own) != total:
            return None
        spans.append(_row_spans(found, own, start, total))
    return spans


def _row_spans(tags: Sequence[int], lengths: Sequence[int], start: int, total: int) -> list[ImageSpan]:
    spans, added = [], 0
    for tag, length in zip(tags, lengths, strict=True):
        first = tag + added
        spans.append(ImageSpan(start + min(first, total), start + min(first + length, total)))
        added += length - 1  # in place of the tag
    return spans
