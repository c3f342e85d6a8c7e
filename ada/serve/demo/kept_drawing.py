"""Draws the images of an answer with the patches that were read as they are, and the others dimmed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llava.serve.web.uploaded_image import jpeg_url

SIDE = 336  # pixels of a drawn image's longer side
FITS = {"pad": "xMidYMid meet", "crop": "xMidYMid slice", "stretch": "none"}  # in SVG's words
LEFT_OUT, EARLY_ONLY = 0.72, 0.4  # opacity of what dims a patch
STYLE = """
.kept-patches { margin: 8px 0; font-size: 0.8em; }
.kept-patches div { display: flex; flex-wrap: wrap; gap: 8px; }
.kept-patches svg { flex: 1 1 120px; max-width: 220px; border-radius: 4px; }
.kept-patches figcaption { color: var(--body-text-color-subdued); }
"""
CAPTION = "What was read of the image: dark patches were left out{}."
EARLY = ", grey ones were read by the early layers only"
Cells = Sequence[Sequence[int]]


def drawings(images: Sequence[bytes], counts: Mapping[str, Any]) -> str:
    """Return HTML with one drawing for each image; empty where nothing was left out of any.

    images: encoded files, in the order of the prompt. counts: ``image_tokens`` of a reply.
    """
    if "kept_cells" not in counts or len(images) != len(counts["grid"]):
        return ""
    parts = [
        _drawing(number, image, grid, kept, late, FITS[counts["fit"]])
        for number, (image, grid, kept, late) in enumerate(
            zip(images, counts["grid"], counts["kept_cells"], counts["late_cells"], strict=True), start=1
        )
        if grid is not None
    ]
    left = EARLY if counts["late_cells"] != counts["kept_cells"] else ""
    drawn = f"<div>{''.join(parts)}</div><figcaption>{CAPTION.format(left)}</figcaption>"
    return f"<figure class='kept-patches'>{drawn}</figure>" if parts else ""


def _drawing(number: int, image: bytes, grid: Sequence[int], kept: Cells, late: Cells, fit: str) -> str:
    """One image as SVG, whose unit is a patch."""
    lines, columns = grid
    every = {(line, column) for line in range(lines) for column in range(columns)}
    entered, read = ({(line, column) for line, column in cells} for cells in (kept, late))
    return (
        f"<svg role='img' aria-label='image {number}: {len(read)} of {lines * columns} patches read to the last layer'"
        f" viewBox='0 0 {columns} {lines}'><rect width='{columns}' height='{lines}' fill='#808080'/>"
        f"<image href='{jpeg_url(image, SIDE)}' width='{columns}' height='{lines}' preserveAspectRatio='{fit}'/>"
        f"{_veil(every - entered, LEFT_OUT)}{_veil(entered - read, EARLY_ONLY)}</svg>"
    )


def _veil(cells: set[tuple[int, int]], opacity: float) -> str:
    outline = "".join(f"M{column} {line}h1v1h-1z" for line, column in sorted(cells))
    return f"<path d='{outline}' fill='#000' fill-opacity='{opacity}' shape-rendering='crispEdges'/>" if cells else ""
