"""Draws how often every head and neuron group ran: layers from top to bottom; what is dark always ran."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ada.eval.report.panels import panels
from ada.eval.stats.plan_counts import ALL, Frequency
from ada.eval.stats.results import Row, by_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

Lines = Mapping[str, Sequence[Frequency]]
"""A line's name -> a heat map for each budget."""
NEVER, ALWAYS = "#edf0f5", "#17407f"


def planners_figure(rows: Sequence[Row]) -> Figure:
    """Draw a line of heat maps for each model and planner, over all test questions."""
    groups = by_name(rows)
    lines = {group[0].name: [row.main.plans[ALL] for row in group] for group in groups}
    return _figure(lines, [f"budget {row.run.budget_text}" for row in groups[0]])


def kinds_figure(rows: Sequence[Row]) -> Figure:
    """Draw one model and planner: a line of heat maps for each kind of test question."""
    lines = {kind: [row.main.plans[kind] for row in rows] for kind in rows[0].main.questions.kinds}
    return _figure(lines, [f"budget {row.run.budget_text}" for row in rows])


def _figure(lines: Lines, headings: Sequence[str]) -> Figure:
    from matplotlib.colors import LinearSegmentedColormap

    deepest = max(len(maps[0]) for maps in lines.values())  # layers: models of a table may differ
    size = (1.7, min(2.6, max(0.6, 0.11 * deepest)))
    fig, grid = panels(len(lines), len(headings), size, (0.22, 0.16), (0.95, 1.0, 0.3, 0.3))
    colours = LinearSegmentedColormap.from_list("ran", [NEVER, "#8fb0dd", ALWAYS])
    for line, (name, maps) in zip(grid, lines.items(), strict=True):
        layers, _, switches = maps[0].shape
        for panel, ran in zip(line, maps, strict=True):
            image = panel.imshow(
                np.hstack([ran[:, 0], np.full((layers, 1), np.nan), ran[:, 1]]),
                cmap=colours, vmin=0, vmax=1, aspect="auto", interpolation="nearest",
                extent=(0, 2 * switches + 1, layers + 0.5, 0.5),
            )  # fmt: skip
            panel.set_xticks([])
            panel.set_yticks([])
            panel.spines[:].set_visible(False)
        line[0].set_yticks(sorted({1, max(1, layers // 2), layers}))
        line[0].tick_params(length=0, labelsize=7)
        line[0].set_ylabel(f"{name}\nlayer", fontsize=8)
    for panel in grid[-1]:
        panel.set_xticks([switches / 2, 1.5 * switches + 1], ["heads", "neuron groups"], fontsize=7)
        panel.tick_params(length=0)
    for panel, heading in zip(grid[0], headings, strict=True):
        panel.set_title(heading, fontsize=9)
    _add_colour_bar(fig, image)
    return fig


def _add_colour_bar(fig: Figure, image: AxesImage) -> None:
    width, height = fig.get_size_inches()
    bar_height = min(2.0, height - 0.6)
    axes = fig.add_axes((1 - 0.8 / width, 0.5 - bar_height / 2 / height, 0.12 / width, bar_height / height))
    bar = fig.colorbar(image, cax=axes)
    bar.set_label("share of the answers", fontsize=8)
    bar.outline.set_visible(False)
    axes.tick_params(labelsize=7, length=2)
