"""Merges the features of one image's crops into the row that enters the decoder (``mm_patch_merge_type``)."""

from __future__ import annotations

import math

import torch
from torch import nn

from llava.errors import CheckpointError

MERGE_TYPES = ("flat", "spatial", "spatial_unpad")


def merge_crops(
    features: torch.Tensor,
    merge_type: str,
    grid: tuple[int, int] | None = None,
    image_size: tuple[int, int] | None = None,
    newline: torch.Tensor | None = None,
    max_crops: int | None = None,
) -> torch.Tensor:
    """Merge crops' features (n, P, D) into (positions, D). The first crop is the full image, made small.

    merge_type: "flat" puts one crop after the other; "spatial" reads the crops' patches line by line across the image;
    "spatial_unpad" also leaves out the lines that only hold padding, and ends each line with ``newline`` (D,).
    grid: crops across and down; image_size: the image's width and height in pixels. max_crops: with "spatial_unpad",
    more patches than about those of so many crops are reduced to these, bilinearly. Raises CheckpointError.
    """
    if merge_type not in MERGE_TYPES:
        raise CheckpointError(f"mm_patch_merge_type is {merge_type!r}; expected one of {', '.join(MERGE_TYPES)}")
    if merge_type == "flat":
        return features.flatten(0, 1)
    unpad = merge_type == "spatial_unpad"
    if unpad and newline is None:
        raise CheckpointError("mm_patch_merge_type 'spatial_unpad' needs the tensor model.image_newline")
    if len(features) == 1:
        return torch.cat([features[0], newline[None]]) if unpad else features[0]  # type: ignore[index]
    if grid is None or image_size is None:
        raise CheckpointError(
            f"mm_patch_merge_type {merge_type!r} with several crops needs image_aspect_ratio 'anyres' and image_sizes"
        )
    overview, patches = features[0], _assembled(features[1:], grid)
    if unpad:
        patches = unpad_image(patches.permute(2, 0, 1), image_size)
        patches = _reduced(patches, features.shape[1], max_crops).permute(1, 2, 0)
        line_ends = newline.to(patches).expand(len(patches), 1, -1)  # type: ignore[union-attr]
        patches = torch.cat([patches, line_ends], dim=1)
    return torch.cat([overview, patches.flatten(0, 1)])


def _assembled(crops: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Put crops (n, side * side, D), in reading order, next to one another: patches (rows, columns, D)."""
    across, down = grid
    side = round(crops.shape[1] ** 0.5)
    if side * side != crops.shape[1] or across * down != len(crops):
        raise CheckpointError(
            f"{len(crops)} crops of {crops.shape[1]} patches do not make an image of {across} by {down} square crops; "
            "the sizes in image_grid_pinpoints must be multiples of a crop's side"
        )
    tiles = crops.view(down, across, side, side, -1)
    return tiles.transpose(1, 2).reshape(down * side, across * side, -1)


def unpad_image(tensor: torch.Tensor, original_size: tuple[int, int]) -> torch.Tensor:
    """Cut the padding off a tensor (C, height, width) into which an image of ``original_size`` was fitted.

    original_size: (width, height). The padding's width is rounded down, so a line that is partly padding stays.
    """
    rows, columns = tensor.shape[1:]
    above, left = padding_of(rows, columns, original_size)
    return tensor[:, above : rows - above, left : columns - left]


def padding_of(rows: int, columns: int, original_size: tuple[int, int]) -> tuple[int, int]:
    """Return how many rows above and below, and columns left and right, hold only the padding of a fitted image."""
    width, height = original_size
    if width / height > columns / rows:  # fitted in width: padding above and below
        return (rows - int(height * columns // width)) // 2, 0  # in integers: floats may fall short of an exact line
    return 0, (columns - int(width * rows // height)) // 2


def _reduced(patches: torch.Tensor, crop_patches: int, max_crops: int | None) -> torch.Tensor:
    """Reduce patches (D, rows, columns) to what ``max_crops`` crops of ``crop_patches`` patches allow."""
    rows, columns = patches.shape[1:]
    size = _reduced_size(rows, columns, crop_patches, max_crops)
    if size == (rows, columns):
        return patches
    return nn.functional.interpolate(patches[None], size, mode="bilinear")[0]


def _reduced_size(rows: int, columns: int, crop_patches: int, max_crops: int | None) -> tuple[int, int]:
    """Return rows and columns after the reduction; both are divided by the same number, if it is more than 1.1."""
    times = 0.0 if max_crops is None else math.sqrt(rows * columns / (max_crops * crop_patches))
    return (max(1, int(rows // times)), max(1, int(columns // times))) if times > 1.1 else (rows, columns)


def merged_positions(
    crop_tokens: int,
    merge_type: str,
    grid: tuple[int, int] | None = None,
    image_size: tuple[int, int] | None = None,
    max_crops: int | None = None,
) -> int:
    """Count the positions that ``merge_crops`` returns for an image whose crops have ``crop_tokens`` features each.

    grid: crops across and down; None for an image that is one crop. The rest as for ``merge_crops``.
    """
    unpad = merge_type == "spatial_unpad"
    if grid is None or image_size is None:
        return crop_tokens + unpad
    across, down = grid
    if not unpad:
        return crop_tokens * (1 + across * down)
    rows, columns = unpadded_lines(round(crop_tokens**0.5), grid, image_size, max_crops)
    return crop_tokens + rows * (columns + 1)


def unpadded_lines(
    side: int, grid: tuple[int, int], image_size: tuple[int, int], max_crops: int | None = None
) -> tuple[int, int]:
    """Count the lines that "spatial_unpad" makes of crops of ``side`` by ``side`` patches, and a line's patches."""
    rows, columns = grid[1] * side, grid[0] * side
    above, left = padding_of(rows, columns, image_size)
    return _reduced_size(rows - 2 * above, columns - 2 * left, side * side, max_crops)
