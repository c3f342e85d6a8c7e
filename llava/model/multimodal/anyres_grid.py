"""Cuts an image of any resolution into a grid of square crops (``image_aspect_ratio`` "anyres")."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Sequence
from typing import Any

from PIL import Image

from llava.errors import CheckpointError

Size = tuple[int, int]  # width, height in pixels
GridPinpoints = str | Sequence[Sequence[int]] | None


def select_best_resolution(original_size: Size, possible_resolutions: Sequence[Size]) -> Size | None:
    """Return the (width, height) that keeps most of the image's pixels, then pads the fewest; the first of equals."""
    width, height = original_size

    def merit(resolution: Size) -> Size:
        across, down = resolution
        scale = min(across / width, down / height)
        kept = min(int(width * scale) * int(height * scale), width * height)
        return kept, kept - across * down

    return max(possible_resolutions, key=merit, default=None)


def resize_and_pad_image(image: Image.Image, target_resolution: Size) -> Image.Image:
    """Fit the image into (width, height), centred on black."""
    width, height = image.size
    across, down = target_resolution
    # Rounded up, and never beyond the target.
    if across / width < down / height:
        fitted = across, min(math.ceil(height * (across / width)), down)
    else:
        fitted = min(math.ceil(width * (down / height)), across), down
    canvas = Image.new("RGB", (across, down), (0, 0, 0))
    canvas.paste(image.resize(fitted), ((across - fitted[0]) // 2, (down - fitted[1]) // 2))
    return canvas


def divide_to_patches(image: Image.Image, patch_size: int) -> list[Image.Image]:
    """Cut square crops in reading order; those at the right and lower edge reach beyond the image."""
    width, height = image.size
    return [
        image.crop((x, y, x + patch_size, y + patch_size))
        for y in range(0, height, patch_size)
        for x in range(0, width, patch_size)
    ]


def grid_resolutions(grid_pinpoints: GridPinpoints, side: int | None = None) -> list[Size]:
    """Read grid pinpoints, a list or a text -> [(width, height), ...] in pixels. Raises CheckpointError.

    A text is that of a list, or LLaVA-NeXT's, which counts crops across and down: "(1x1),(2x1)", or "(1x1),...,(6x6)"
    for every grid from the first to the last. side: a crop's, in pixels, which that form needs.
    """
    try:
        if isinstance(grid_pinpoints, str) and "x" in grid_pinpoints:
            return _counted_resolutions(grid_pinpoints, side)
        points: Any = ast.literal_eval(grid_pinpoints) if isinstance(grid_pinpoints, str) else grid_pinpoints
        return [(int(width), int(height)) for width, height in points]
    except (ValueError, SyntaxError, TypeError) as error:
        raise CheckpointError(
            f"image_grid_pinpoints is {grid_pinpoints!r}; expected a list like [[336, 672], [672, 336]], or counts of "
            "crops like (1x1),...,(6x6)"
        ) from error


def _counted_resolutions(text: str, side: int | None) -> list[Size]:
    """Read "(1x1),...,(6x6)". Raises ValueError for another form, TypeError without a ``side``."""
    grid = r"\((\d+)x(\d+)\)"
    text = text.replace(" ", "")
    if not re.fullmatch(rf"{grid}(,({grid}|\.\.\.,{grid}))*", text):
        raise ValueError(text)
    if side is None:
        raise TypeError("counts of crops need the side of a crop")
    counts = [(int(across), int(down)) for across, down in re.findall(grid, text)]
    if "..." in text:
        first, last = counts[0], counts[-1]
        counts = [(i, j) for i in range(first[0], last[0] + 1) for j in range(first[1], last[1] + 1)]
    return [(across * side, down * side) for across, down in counts]


def best_grid_size(image_size: Size, grid_pinpoints: GridPinpoints, side: int | None = None) -> Size:
    """Return the (width, height) in pixels that an image of ``image_size`` is fitted into. Raises CheckpointError.

    side: a crop's, in pixels; see ``grid_resolutions``.
    """
    best = select_best_resolution(image_size, grid_resolutions(grid_pinpoints, side))
    if best is None:
        raise CheckpointError("image_grid_pinpoints is empty; expected at least one [width, height]")
    return best


def get_anyres_image_grid_shape(image_size: Size, grid_pinpoints: GridPinpoints, patch_size: int) -> tuple[int, int]:
    """Count the crops of ``patch_size`` pixels that an image of (width, height) is cut into: across, down."""
    width, height = best_grid_size(image_size, grid_pinpoints, patch_size)
    return width // patch_size, height // patch_size
