"""Accuracy against budget: a line for each model and planner, its 95 % interval as a band."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ada.eval.table import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#2b5fb3", "#d1495b", "#3a8f5c", "#e09f3e", "#7b4ea3", "#5b6770", "#1b9aaa", "#a0522d")


def figure(rows: Sequence[Row], constant: float) -> Figure:
    """``constant``: share that the best constant answers get right, in [0, 1]."""
    from matplotlib.figure import Figure

    groups: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: row.run.budget.fraction):
        groups.setdefault(f"{row.run.label}, {row.run.planner}", []).append(row)
    fig = Figure(figsize=(7, 4.2), layout="constrained")
    axes = fig.subplots()
    for name in dict.fromkeys(f"{row.run.label}, {row.run.planner}" for row in rows):
        own, colour = groups[name], COLOURS[list(groups).index(name) % len(COLOURS)]
        budgets = [row.run.budget.fraction for row in own]
        low, high = ([100 * row.accuracy.interval[end] for row in own] for end in (0, 1))
        axes.plot(budgets, [100 * row.accuracy.share for row in own], "o-", ms=4, color=colour, label=name)
        axes.fill_between(budgets, low, high, color=colour, alpha=0.15, lw=0)
    axes.axhline(100 * constant, color="#888888", ls=":", label="best constant answers")
    axes.set_xlabel("latency budget, share of the full prefill compute")
    axes.set_ylabel("accuracy, %")
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8)
    return fig


def save_png(rows: Sequence[Row], constant: float, path: Path) -> None:
    """Write the picture; beside first, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    figure(rows, constant).savefig(part, format="png", dpi=150)
    part.replace(path)
