"""Features of one image's crops -> the row of features that stands in the sequence (``mm_patch_merge_type``)."""

from __future__ import annotations

import torch

from llava.errors import CheckpointError

MERGE_TYPES = ("flat", "spatial", "spatial_unpad")


def merge_crops(
    features: torch.Tensor,
    merge_type: str,
    grid: tuple[int, int] | None = None,
    image_size: tuple[int, int] | None = None,
    newline: torch.Tensor | None = None,
) -> torch.Tensor:
    """Crops' features (n, P, D) -> (positions, D). The first crop is the whole image, made small.

    merge_type: "flat" puts crop behind crop; "spatial" reads the crops' patches line by line across the picture;
    "spatial_unpad" also leaves out the lines that only hold padding, and ends each line with ``newline`` (D,).
    grid: crops across and down; image_size: the picture's width and height in pixels.
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
    whole, picture = features[0], _picture(features[1:], grid)
    if unpad:
        picture = unpad_image(picture.permute(2, 0, 1), image_size).permute(1, 2, 0)
        line_ends = newline.to(picture).expand(len(picture), 1, -1)  # type: ignore[union-attr]
        picture = torch.cat([picture, line_ends], dim=1)
    return torch.cat([whole, picture.flatten(0, 1)])


def _picture(crops: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Crops (n, side * side, D), in reading order -> the picture of patches (rows, columns, D)."""
    across, down = grid
    side = round(crops.shape[1] ** 0.5)
    if side * side != crops.shape[1] or across * down != len(crops):
        raise CheckpointError(
            f"{len(crops)} crops of {crops.shape[1]} patches do not make a picture of {across} by {down} square crops"
        )
    tiles = crops.view(down, across, side, side, -1)
    return tiles.transpose(1, 2).reshape(down * side, across * side, -1)


def unpad_image(tensor: torch.Tensor, original_size: tuple[int, int]) -> torch.Tensor:
    """Cut the padding off a picture (C, height, width) into which one of ``original_size`` (width, height) was fitted.

    The padding's width is rounded down, so a line that is partly padding stays.
    """
    width, height = original_size
    rows, columns = tensor.shape[1:]
    if width / height > columns / rows:  # fitted in width: padding above and below
        border = (rows - int(height * (columns / width))) // 2
        return tensor[:, border : rows - border]
    border = (columns - int(width * (rows / height))) // 2
    return tensor[:, :, border : columns - border]
