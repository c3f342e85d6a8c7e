"""Accuracy against what it costs: operations, measured time to first token, measured time per further token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ada.eval.report.markdown import constant_share
from ada.eval.report.panels import below, panels
from ada.eval.stats.accuracy import Accuracy
from ada.eval.stats.results import Row, by_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#2b5fb3", "#d1495b", "#3a8f5c", "#e09f3e", "#7b4ea3", "#5b6770", "#1b9aaa", "#a0522d")
MARKERS = "osD^vPX*"
COLUMNS = 5


@dataclass(frozen=True)
class Axis:
    """What accuracy is drawn against. ``cost``: of a row's answers to the set of this name."""

    name: str
    label: str
    title: str
    cost: Callable[[Row, str], float]
    timed: bool = True


AXES = (
    Axis("flops", "prefill, GFLOPs", "operations", lambda row, name: row.parts[name].prefill_gflops, timed=False),
    Axis("first-token", "time to first token, ms", "time to first token", lambda row, _: _times(row).first),
    Axis("token", "time per further token, ms", "time per further token", lambda row, _: _times(row).token),
)


def _times(row: Row) -> Any:
    return row.times


def axes_of(rows: Sequence[Row]) -> list[Axis]:
    """Those that the rows have figures for."""
    return [axis for axis in AXES if not axis.timed or all(row.times for row in rows)]


def accuracy_figure(rows: Sequence[Row]) -> Figure:
    """The test questions: a panel an axis, a line a model and planner, its 95 % interval as a band or bars."""
    axes, questions = axes_of(rows), rows[0].main.questions
    size = (3.4 if len(axes) > 1 else 6.2, 3.3)
    fig, places = panels(1, len(axes), size, (0.25, 0), (0.65, 0.15, 0.15, 0.85), sharey=True)
    for panel, axis in zip(places[0], axes, strict=True):
        _draw(panel, rows, axis, questions.name, None)
        share = constant_share(questions)
        panel.axhline(100 * share, color="#888888", ls=":", label="best constant answers")
        panel.set_xlabel(axis.label)
    places[0, 0].set_ylabel("accuracy, %")
    below(fig, places[0, 0])
    return fig


def places_figure(rows: Sequence[Row], places: Sequence[tuple[str, str | None, str]], axis: Axis) -> Figure:
    """A small panel for each of ``places``: a set's name, a kind of its questions (None for all), and a title."""
    columns = min(COLUMNS, len(places))
    lines = -(-len(places) // columns)
    fig, grid = panels(
        lines, columns, (1.95, 1.5), (0.15, 0.35), (0.65, 0.15, 0.3, 0.85), sharex=True, sharey=True
    )  # fmt: skip
    for panel, (name, kind, title) in zip(grid.ravel(), places, strict=False):
        _draw(panel, rows, axis, name, kind)
        panel.set_title(title, fontsize=9)
        panel.tick_params(labelsize=8)
    for place, panel in enumerate(grid.ravel()):
        panel.set_visible(place < len(places))
        if len(places) - columns <= place < len(places):  # nothing stands below: it shows the numbers
            panel.tick_params(labelbottom=True)
    fig.supylabel("accuracy, %", fontsize=9, x=0.01)
    below(fig, grid[0, 0], axis.label)
    return fig


def _draw(panel: Any, rows: Sequence[Row], axis: Axis, name: str, kind: str | None) -> None:
    for index, group in enumerate(by_name(rows)):
        own = sorted(group, key=lambda row: row.run.budget.fraction)
        points = [(axis.cost(row, name), _accuracy(row, name, kind)) for row in own]
        colour, costs = COLOURS[index % len(COLOURS)], [cost for cost, _ in points]
        low, high = ([100 * accuracy.interval[end] for _, accuracy in points] for end in (0, 1))
        shares = [100 * accuracy.share for _, accuracy in points]
        look: dict[str, Any] = {"lw": 2, "zorder": 3} if index == 0 else {"lw": 1.2}
        panel.plot(costs, shares, color=colour, marker=MARKERS[index % 8], ms=4, label=group[0].name, **look)
        if axis.timed:  # measured: a smaller budget may happen to be slower, and bands would fold
            panel.vlines(costs, low, high, color=colour, alpha=0.45, lw=1)
        else:
            panel.fill_between(costs, low, high, color=colour, alpha=0.13, lw=0)
    panel.grid(alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)


def _accuracy(row: Row, name: str, kind: str | None) -> Accuracy:
    part = row.parts[name]
    return part.accuracy if kind is None else part.kinds[kind]
