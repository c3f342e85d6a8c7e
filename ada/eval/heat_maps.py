"""How often every head and neuron group ran, as pictures: layers from top to bottom, dark runs always."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ada.eval.plan_counts import ALL
from ada.eval.results import Row, by_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Lines = Mapping[str, Sequence[np.ndarray]]
"""A line's name -> for each budget, frequencies (layers, 2, switches)."""


def planners_figure(rows: Sequence[Row]) -> Figure:
    """A line a model and planner, over all test questions."""
    groups = by_name(rows)
    lines = {group[0].name: [row.main.plans[ALL] for row in group] for group in groups}
    return _figure(lines, [f"budget {row.run.budget}" for row in groups[0]])


def kinds_figure(rows: Sequence[Row]) -> Figure:
    """One model and planner: a line a kind of test question."""
    lines = {kind: [row.main.plans[kind] for row in rows] for kind in rows[0].main.questions.kinds}
    return _figure(lines, [f"budget {row.run.budget}" for row in rows])


def _figure(lines: Lines, headings: Sequence[str]) -> Figure:
    from matplotlib.figure import Figure

    layers, _, switches = next(iter(lines.values()))[0].shape
    height = min(2.6, 0.45 + 0.11 * layers)
    fig = Figure(figsize=(2.25 * len(headings) + 0.9, height * len(lines) + 0.7), layout="constrained")
    panels = fig.subplots(len(lines), len(headings), sharex=True, sharey=True, squeeze=False)
    gap = np.full((layers, 1), np.nan)
    for line, (name, maps) in zip(panels, lines.items(), strict=True):
        for panel, often in zip(line, maps, strict=True):
            image = panel.imshow(
                np.hstack([often[:, 0], gap, often[:, 1]]),
                cmap="Blues", vmin=0, vmax=1, aspect="auto", interpolation="nearest",
                extent=(0, 2 * switches + 1, layers + 0.5, 0.5),
            )  # fmt: skip
            panel.set_xticks([switches / 2, 1.5 * switches + 1], ["heads", "neuron groups"], fontsize=7)
            panel.tick_params(length=0, labelsize=7)
            panel.set_yticks([1, layers // 2, layers])
            panel.spines[:].set_visible(False)
        line[0].set_ylabel(f"{name}\nlayer", fontsize=8)
    for panel, heading in zip(panels[0], headings, strict=True):
        panel.set_title(heading, fontsize=9)
    bar = fig.colorbar(image, ax=panels, shrink=min(1.0, 2 / len(lines)), aspect=14, pad=0.01)
    bar.set_label("share of the answers in which it ran", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return fig
