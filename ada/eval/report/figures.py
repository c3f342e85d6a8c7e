"""Draws accuracy against what it costs: operations, measured TTFT, measured inter-token latency."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ada.eval.answering.latency_samples import LatencySamples
from ada.eval.report.markdown import constant_share, several_tokens
from ada.eval.report.panels import add_legend, panels
from ada.eval.stats.falloff import Subset
from ada.eval.stats.results import Row, by_name, largest_first

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#2b5fb3", "#d1495b", "#3a8f5c", "#e09f3e", "#7b4ea3", "#5b6770", "#1b9aaa", "#a0522d")
MARKERS = "osD^vPX*"
COLUMNS = 5


@dataclass(frozen=True)
class Axis:
    """What accuracy is drawn against. ``cost``: of a row's answers to the set of a name."""

    name: str
    label: str
    title: str
    cost: Callable[[Row, str], float]
    timed: bool = True


AXES = (
    Axis("flops", "prefill, GFLOPs", "operations", lambda row, name: row.parts[name].prefill_gflops, timed=False),
    Axis("first-token", "TTFT, ms", "time to first token", lambda row, _: _latency(row).ttft_p50_ms),
    Axis("token", "inter-token latency, ms", "inter-token latency", lambda row, _: _latency(row).inter_token_p50_ms),
)


def _latency(row: Row) -> LatencySamples:
    assert row.latency is not None, "axes_of leaves out axes without figures"
    return row.latency


def axes_of(rows: Sequence[Row]) -> list[Axis]:
    """Return the axes that the rows have figures for."""
    return [axis for axis in AXES if not axis.timed or all(row.latency for row in rows)]


def accuracy_figure(rows: Sequence[Row]) -> Figure:
    """Draw the test questions: a panel for each axis, a line for each model and planner, with its 95 % interval."""
    axes, questions = axes_of(rows), rows[0].main.questions
    size = (3.4 if len(axes) > 1 else 6.2, 3.3)
    fig, grid = panels(1, len(axes), size, (0.25, 0), (0.65, 0.15, 0.15, 0.85), sharey=True)
    for panel, axis in zip(grid[0], axes, strict=True):
        _draw(panel, rows, axis, questions.name, None)
        share = constant_share(questions)
        panel.axhline(100 * share, color="#888888", ls=":", label="best constant answers")
        panel.set_xlabel(axis.label)
    grid[0, 0].set_ylabel("accuracy, %")
    add_legend(fig, grid[0, 0])
    return fig


def subsets_figure(rows: Sequence[Row], subsets: Mapping[Subset, str], axis: Axis) -> Figure:
    """Draw a small panel for each subset of the questions, under its title."""
    columns = min(COLUMNS, len(subsets))
    lines = -(-len(subsets) // columns)
    fig, grid = panels(
        lines, columns, (1.95, 1.5), (0.15, 0.35), (0.65, 0.15, 0.3, 0.85), sharex=True, sharey=True
    )  # fmt: skip
    for panel, ((name, kind), title) in zip(grid.ravel(), subsets.items(), strict=False):
        _draw(panel, rows, axis, name, kind)
        panel.set_title(title, fontsize=9)
        panel.tick_params(labelsize=8)
    for index, panel in enumerate(grid.ravel()):
        panel.set_visible(index < len(subsets))
        if len(subsets) - columns <= index < len(subsets):  # there is no panel below: this one shows the numbers
            panel.tick_params(labelbottom=True)
    fig.supylabel("accuracy, %", fontsize=9, x=0.01)
    add_legend(fig, grid[0, 0], axis.label)
    return fig


def frontier(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return those pairs of cost and accuracy that no cheaper one is as good as, by cost."""
    best: list[tuple[float, float]] = []
    for cost, accuracy in sorted(points, key=lambda point: (point[0], -point[1])):
        if not best or accuracy > best[-1][1]:
            best.append((cost, accuracy))
    return best


def _draw(panel: Axes, rows: Sequence[Row], axis: Axis, name: str, kind: str | None) -> None:
    for index, group in enumerate(by_name(rows)):
        points = [(axis.cost(row, name), row.parts[name].accuracy_of(kind)) for row in largest_first(group)[::-1]]
        colour, costs = COLOURS[index % len(COLOURS)], [cost for cost, _ in points]
        low, high = ([100 * accuracy.interval[end] for _, accuracy in points] for end in (0, 1))
        shares = [100 * accuracy.share for _, accuracy in points]
        look: dict[str, Any] = {"lw": 2, "zorder": 3} if index == 0 else {"lw": 1.2}
        panel.plot(costs, shares, color=colour, marker=MARKERS[index % 8], ms=4, label=group[0].name, **look)
        if axis.timed:  # measured: a smaller budget may happen to be slower, and bands would fold
            panel.vlines(costs, low, high, color=colour, alpha=0.45, lw=1)
        else:
            panel.fill_between(costs, low, high, color=colour, alpha=0.13, lw=0)
    if several_tokens(rows) and not axis.timed:
        best = frontier([(axis.cost(row, name), row.parts[name].accuracy_of(kind).share) for row in rows])
        costs, shares = [cost for cost, _ in best], [100 * share for _, share in best]
        panel.plot(costs, shares, color="#bbbbbb", lw=5, solid_capstyle="round", zorder=1, label="frontier")
    panel.grid(alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)
