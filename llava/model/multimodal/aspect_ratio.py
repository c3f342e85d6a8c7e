"""Reads ``image_aspect_ratio``: whether an image is cut into crops, and how many crops' features it may keep."""

from __future__ import annotations

import re

from llava.errors import CheckpointError

ANYRES = "anyres"
NOT_SUPPORTED = ("highres", "crop_split")  # LLaVA-NeXT's experiments, which no published checkpoint uses


def aspect_ratio(config: object) -> str | None:
    """Return the config's ``image_aspect_ratio``. Raises CheckpointError for one that is not supported.

    "pad" pads an image to a square; "anyres" and "anyres_max_N" cut it into crops; with "square", and any other value
    that no LLaVA knows, the image processor does all the work.
    """
    aspect: str | None = getattr(config, "image_aspect_ratio", None)
    is_anyres = str(aspect).startswith(ANYRES)
    if aspect in NOT_SUPPORTED or (is_anyres and not re.fullmatch(r"anyres(_max_[1-9]\d*)?", str(aspect))):
        raise CheckpointError(
            f"image_aspect_ratio is {aspect!r}; expected square, pad, anyres, or anyres_max_N with N crops, such as "
            "anyres_max_9"
        )
    return aspect


def cuts_crops(config: object) -> bool:
    """Return whether images are cut into crops. Raises CheckpointError for a ratio that is not supported."""
    return (aspect_ratio(config) or "").startswith(ANYRES)


def max_crops(config: object) -> int | None:
    """Return N of "anyres_max_N": an image's features are reduced to about those of N crops; None without a limit."""
    _, _, limit = (aspect_ratio(config) or "").partition("anyres_max_")
    return int(limit) if limit else None


def crops_of(config: object, num_images: int) -> bool:
    """Return whether the images of a prompt that has ``num_images`` are cut into crops.

    With "anyres_max_N" only an image that is alone is: LLaVA-OneVision pads each of several images to a square.
    """
    return cuts_crops(config) and (num_images == 1 or max_crops(config) is None)
