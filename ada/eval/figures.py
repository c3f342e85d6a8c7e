"""Accuracy against what it costs: operations, measured time to first token, measured time per further token."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ada.eval.accuracy import Accuracy
from ada.eval.markdown import constant_share
from ada.eval.results import Row, by_name
from llava.eval.record_file import write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#2b5fb3", "#d1495b", "#3a8f5c", "#e09f3e", "#7b4ea3", "#5b6770", "#1b9aaa", "#a0522d")
MARKERS = "osD^vPX*"


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
    Axis("first-token", "time to first token, ms", "time to first token", lambda row, name: _times(row).first),
    Axis("token", "time per further token, ms", "time per further token", lambda row, name: _times(row).token),
)


def _times(row: Row) -> Any:
    return row.times


def axes_of(rows: Sequence[Row]) -> list[Axis]:
    """Those that the rows have figures for."""
    return [axis for axis in AXES if not axis.timed or all(row.times for row in rows)]


def accuracy_figure(rows: Sequence[Row]) -> Figure:
    """The test questions: a panel an axis, a line a model and planner, its 95 % interval as a band."""
    from matplotlib.figure import Figure

    axes = axes_of(rows)
    name = rows[0].main.questions.name
    fig = Figure(figsize=(3.9 * len(axes) + (2.4 if len(axes) == 1 else 0), 4.3), layout="constrained")
    panels = fig.subplots(1, len(axes), sharey=True, squeeze=False)[0]
    for panel, axis in zip(panels, axes, strict=True):
        _draw(panel, rows, axis, name, None)
        panel.axhline(100 * constant_share(rows[0].main.questions), color="#888888", ls=":", label="best constant answers")
        panel.set_xlabel(axis.label)
    panels[0].set_ylabel("accuracy, %")
    handles, labels = panels[0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=min(5, len(labels)), fontsize=8, frameon=False)
    return fig


def places_figure(rows: Sequence[Row], places: Sequence[tuple[str, str | None, str]], axis: Axis) -> Figure:
    """A small panel for each of ``places``: a set's name, a kind of its questions (None for all), and a title."""
    from matplotlib.figure import Figure

    columns = min(5, len(places))
    lines = -(-len(places) // columns)
    fig = Figure(figsize=(2.4 * columns, 2.15 * lines + 0.6), layout="constrained")
    panels = fig.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for panel, (name, kind, title) in zip(panels, places, strict=False):
        _draw(panel, rows, axis, name, kind)
        panel.set_title(title, fontsize=9)
        panel.tick_params(labelsize=8)
    for panel in panels[len(places) :]:
        panel.set_visible(False)
    fig.supxlabel(axis.label, fontsize=9)
    fig.supylabel("accuracy, %", fontsize=9)
    handles, labels = panels[0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=min(5, len(labels)), fontsize=8, frameon=False)
    return fig


def _draw(panel: Any, rows: Sequence[Row], axis: Axis, name: str, kind: str | None) -> None:
    for index, group in enumerate(by_name(rows)):
        points = sorted((axis.cost(row, name), _accuracy(row, name, kind)) for row in group)
        colour, costs = COLOURS[index % len(COLOURS)], [cost for cost, _ in points]
        low, high = ([100 * accuracy.interval[end] for _, accuracy in points] for end in (0, 1))
        shares = [100 * accuracy.share for _, accuracy in points]
        first = {"lw": 2, "zorder": 3} if index == 0 else {"lw": 1.2}
        panel.plot(costs, shares, color=colour, marker=MARKERS[index % 8], ms=4, label=group[0].name, **first)
        panel.fill_between(costs, low, high, color=colour, alpha=0.13, lw=0)
    panel.grid(alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)


def _accuracy(row: Row, name: str, kind: str | None) -> Accuracy:
    part = row.parts[name]
    return part.accuracy if kind is None else part.kinds[kind]


def picture(fig: Figure, form: str) -> bytes:
    """A figure as "png" or "svg": the same bytes for the same figure; an SVG's text stays text."""
    import matplotlib

    buffer = io.BytesIO()
    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": "ada", "font.family": "sans-serif"}
    with matplotlib.rc_context(settings):
        fig.savefig(buffer, format=form, dpi=150, metadata={"Date": None} if form == "svg" else None)
    return buffer.getvalue()


def save(fig: Figure, path: Path) -> None:
    """Beside one another as PNG and SVG; ``path`` has no ending."""
    for form in ("png", "svg"):
        write_whole(path.with_name(f"{path.name}.{form}"), picture(fig, form))
