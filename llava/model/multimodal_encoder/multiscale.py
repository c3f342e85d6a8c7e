"""Reads images at several scales (S2): pixels are enlarged and cut into crops, their features merged again.

N images, s scales, P patches of a crop, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch.nn import functional

from llava.errors import CheckpointError

DEFAULT_SCALES = "336,672,1008"


def scales_of(setting: str | Sequence[int] | None) -> list[int]:
    """Return the sides in pixels that ``s2_scales`` names, ascending, such as "336,672,1008" (the default).

    Raises CheckpointError where they are no positive multiples of the smallest.
    """
    words = DEFAULT_SCALES if setting is None else setting
    try:
        scales = sorted(int(word) for word in (words.split(",") if isinstance(words, str) else words))
    except (TypeError, ValueError):
        scales = []
    if not scales or scales[0] < 1 or len(set(scales)) < len(scales) or any(scale % scales[0] for scale in scales):
        raise CheckpointError(
            f"s2_scales is {setting!r}; expected different sides in pixels, each a multiple of the smallest, such as "
            f"{DEFAULT_SCALES!r}"
        )
    return scales


def scaled_crops(pixels: torch.Tensor, scale: int, side: int) -> torch.Tensor:
    """Resize pixels (N, 3, L, L) to ``scale`` and cut them into crops (n * n * N, 3, side, side).

    The crops at one place, in reading order, stand together: those of all images, then the next place's.
    """
    resized = functional.interpolate(pixels.float(), size=scale, mode="bicubic").to(pixels.dtype)
    (num_images, channels), per_side = resized.shape[:2], scale // side
    grid = resized.view(num_images, channels, per_side, side, per_side, side)
    return grid.permute(2, 4, 0, 1, 3, 5).flatten(0, 2)


def merged_features(features: Sequence[torch.Tensor], num_images: int) -> torch.Tensor:
    """Merge each scale's features (n * n * N, P, C), in the order of ``scaled_crops``, into (N, P, s * C).

    The first scale has one crop an image; the others are averaged down to its patches.
    """
    rows = math.isqrt(features[0].shape[1])
    planes = [functional.adaptive_avg_pool2d(_plane(one, num_images).float(), rows).to(one.dtype) for one in features]
    return torch.cat(planes, dim=1).flatten(2).transpose(1, 2)


def _plane(features: torch.Tensor, num_images: int) -> torch.Tensor:
    """Put crops' features (n * n * N, P, C) where the crops were in the image: (N, C, n * rows, n * rows)."""
    count, patches, channels = features.shape
    per_side, rows = math.isqrt(count // num_images), math.isqrt(patches)
    grid = features.view(per_side, per_side, num_images, rows, rows, channels)
    return grid.permute(2, 5, 0, 3, 1, 4).reshape(num_images, channels, per_side * rows, per_side * rows)
