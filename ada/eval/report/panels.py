"""Lays out figures of many panels by hand, much faster than matplotlib's own search, and renders them as files."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava.files.atomic_write import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Margins = tuple[float, float, float, float]
"""Inches that are left free: left, right, top, bottom."""
Drawn = dict[str, bytes]
"""A figure as "png" and as "svg"."""
MEDIA_TYPES = {"png": "image/png", "svg": "image/svg+xml"}


def panels(
    lines: int, columns: int, size: tuple[float, float], gap: tuple[float, float], margins: Margins, **shared: Any
) -> tuple[Figure, Any]:
    """Make a figure and its axes (lines, columns), each of ``size``, with ``gap`` between: width and height in inches.

    shared: further arguments of ``Figure.subplots``.
    """
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


def add_legend(fig: Figure, axes: Axes, label: str = "") -> None:
    """Add a label of all x axes at the bottom, and below it the legend of ``axes``."""
    height = fig.get_size_inches()[1]
    fig.text(0.5, 0.4 / height, label, ha="center", va="center", fontsize=9)
    handles, labels = axes.get_legend_handles_labels()
    fig.legend(
        handles, labels, loc="center", bbox_to_anchor=(0.5, 0.16 / height), ncols=min(6, len(labels)), fontsize=8,
        frameon=False,
    )  # fmt: skip


def drawn(fig: Figure) -> Drawn:
    """Render a figure: the same bytes for the same figure; an SVG's text stays text."""
    import matplotlib

    found = {}
    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": "ada", "font.family": "sans-serif"}
    with matplotlib.rc_context(settings):
        for form, metadata in (("png", None), ("svg", {"Date": None})):
            buffer = io.BytesIO()
            fig.savefig(buffer, format=form, dpi=150, metadata=metadata)
            found[form] = buffer.getvalue()
    return found


def save(figures: Mapping[str, Drawn], folder: Path) -> None:
    """Write each figure under its name, as PNG and SVG."""
    for name, forms in figures.items():
        for form, content in forms.items():
            atomic_write(folder / f"{name}.{form}", content)


def data_url(forms: Mapping[str, bytes], form: str) -> str:
    """Return a URL that holds an image itself. form: "png" or "svg"."""
    return f"data:{MEDIA_TYPES[form]};base64,{base64.b64encode(forms[form]).decode('ascii')}"
