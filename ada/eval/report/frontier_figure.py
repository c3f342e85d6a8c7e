"""Draws a checkpoint's frontier: accuracy over the share of the prefill, a line an amount of image tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ada.eval.report.figures import COLOURS, MARKERS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Curve = Sequence[tuple[float, float]]
"""Pairs of a share of the full prefill and an accuracy, both in [0, 1]."""


def frontier_figure(measured: Mapping[str, Curve], chosen: Curve) -> Figure:
    """Return the figure: the measured points of each amount, and what ``auto`` chooses, as predicted, by budget.

    measured: amount -> its points, by units.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.6), layout="constrained")
    axis = figure.subplots()
    axis.plot(*_percent(chosen), color="#bbbbbb", lw=5, solid_capstyle="round", zorder=1, label="chosen by auto")
    for index, (name, curve) in enumerate(measured.items()):
        colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index // len(COLOURS) % len(MARKERS)]
        axis.plot(*_percent(curve), color=colour, marker=marker, ms=5, lw=1.2, zorder=2, label=name)
    axis.set(xlabel="latency budget: share of the full prefill, %", ylabel="accuracy, %")
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(title="image tokens", fontsize=8, loc="lower right")
    return figure


def _percent(curve: Curve) -> tuple[list[float], list[float]]:
    return [100 * share for share, _ in curve], [100 * accuracy for _, accuracy in curve]
