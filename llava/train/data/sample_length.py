"""Finds where ``--model_max_length`` cuts a sample, its image counted, and what is left of its answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX

ImagePositions = Callable[[tuple[int, int]], int]
"""How many positions of the decoder an image of (width, height) takes."""


def starts_of(ids: torch.Tensor, images: Sequence[int]) -> torch.Tensor:
    """Return the position at which each id (T,) begins, and last where the sample ends: (T + 1,).

    images: positions of each tag's image, in the order of the tags.
    """
    widths = torch.ones(len(ids) + 1, dtype=torch.long)
    widths[1:][ids == IMAGE_TOKEN_INDEX] = torch.tensor(images, dtype=torch.long)
    return widths.cumsum(0) - 1


def ids_within(ids: torch.Tensor, images: Sequence[int], limit: int) -> int:
    """Count the ids (T,), from the first, that begin before position ``limit``; of the last, an image, a part may not.

    images: as ``starts_of`` takes them.
    """
    return int((starts_of(ids, images)[:-1] < limit).sum())


def count_labels(labels: torch.Tensor) -> int:
    """Count the tokens that are trained on."""
    return int((labels != IGNORE_INDEX).sum())
