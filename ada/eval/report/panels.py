"""Figures of many panels, laid out by hand, which is much quicker than matplotlib's own search; and their files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava.files.atomic_write import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Margins = tuple[float, float, float, float]
"""Inches that are left free: left, right, top, bottom."""


def panels(
    lines: int, columns: int, size: tuple[float, float], gap: tuple[float, float], margins: Margins, **shared: Any
) -> tuple[Figure, Any]:
    """A figure and its axes (lines, columns), each of ``size``, with ``gap`` between: width and height in inches."""
    from matplotlib.figure import Figure

    left, right, top, bottom = margins
    width = left + columns * size[0] + (columns - 1) * gap[0] + right
    height = top + lines * size[1] + (lines - 1) * gap[1] + bottom
    fig = Figure(figsize=(width, height))
    axes = fig.subplots(lines, columns, squeeze=False, **shared)
    fig.subplots_adjust(
        left=left / width,
        right=1 - right / width,
        top=1 - top / height,
        bottom=bottom / height,
        wspace=gap[0] / size[0],
        hspace=gap[1] / size[1],
    )
    return fig, axes


def below(fig: Figure, axes: Any, label: str = "") -> None:
    """A label of all x axes, and under it the legend of the first panel."""
    height = fig.get_size_inches()[1]
    fig.text(0.5, 0.4 / height, label, ha="center", va="center", fontsize=9)
    handles, labels = axes.get_legend_handles_labels()
    fig.legend(
        handles, labels, loc="center", bbox_to_anchor=(0.5, 0.16 / height), ncols=min(6, len(labels)), fontsize=8,
        frameon=False,
    )  # fmt: skip


Drawn = dict[str, bytes]
"""A figure as "png" and as "svg"."""


def drawn(fig: Figure) -> Drawn:
    """The same bytes for the same figure; an SVG's text stays text."""
    import matplotlib

    found = {}
    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": "ada", "font.family": "sans-serif"}
    with matplotlib.rc_context(settings):
        for form, metadata in (("png", None), ("svg", {"Date": None})):
            buffer = io.BytesIO()
            fig.savefig(buffer, format=form, dpi=150, metadata=metadata)
            found[form] = buffer.getvalue()
    return found


def save(figures: dict[str, Drawn], folder: Path) -> None:
    """Each under its name, beside one another as PNG and SVG."""
    for name, forms in figures.items():
        for form, content in forms.items():
            atomic_write(folder / f"{name}.{form}", content)
