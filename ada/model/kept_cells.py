"""Says where on each image the tokens are that an answer has read, so that they can be drawn on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ada.execution.late_tokens import LateTokens
from llava.model.multimodal.aspect_ratio import aspect_ratio

Indices = Sequence[Sequence[int]]
"""For each image of a prompt, which of its tokens are meant, in ascending order."""


def kept_cells(model: Any, output: Any) -> dict[str, Any]:
    """Return JSON-ready fields about an answer to one prompt of which image tokens were left out; empty for others.

    ``grid``: lines and columns of each image's patches, None for an image of several crops, whose tokens are in another
    order even where their number is a square, and for one with more tokens than patches. ``kept_cells``:
    the (line, column) of the tokens that entered the decoder; ``late_cells``: of those that its later layers have read.
    ``fit``: how an image becomes the square that the vision tower sees: "pad", "crop" or "stretch".
    """
    tokens, kept = output.report.image_tokens, output.kept_indices[0]
    if tokens.late == tokens.all or tokens.merged_from is not None or not kept:
        return {}
    late = late_indices(output.late_tokens, kept)
    sides = [_side(model, count) for count in tokens.all]
    return {
        "grid": [None if side is None else [side, side] for side in sides],
        "kept_cells": _cells(kept, sides),
        "late_cells": _cells(late, sides),
        "fit": _fit(model),
    }


def late_indices(late_tokens: LateTokens | None, kept: Indices) -> Indices:
    """Return which of a prompt's ``kept`` tokens its later layers have read."""
    if late_tokens is None or late_tokens.stays is None:
        return kept
    stays = late_tokens.stays[0].tolist()
    return [
        [index for index, column in zip(own, range(span.start, span.end), strict=True) if stays[column]]
        for own, span in zip(kept, late_tokens.spans[0], strict=True)
    ]


def _side(model: Any, tokens: int) -> int | None:
    side: int = model.get_vision_tower().num_patches_per_side
    return side if side * side == tokens else None


def _cells(indices: Indices, sides: Sequence[int | None]) -> list[list[list[int]]]:
    """Return lines and columns of tokens; none of an image without a side, nor of what was added to one."""
    return [
        [] if side is None else [list(divmod(index, side)) for index in own if index < side * side]
        for own, side in zip(indices, sides, strict=True)
    ]


def _fit(model: Any) -> str:
    if aspect_ratio(model.config) == "pad":
        return "pad"
    tower = model.get_vision_tower()
    crops = tower is not None and "shortest_edge" in (getattr(tower.image_processor, "size", None) or {})
    return "crop" if crops else "stretch"
