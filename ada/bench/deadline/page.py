"""Shows what the deadline benchmark has found: a table, and one HTML page with a figure for each load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from ada.bench.deadline.benchmark import Found
from ada.bench.deadline.scores import Curve
from ada.eval.report.panels import add_legend, data_url, drawn, panels

HEAD = ("requests/s", "contestant", "area, %")


def table(curves: Sequence[Curve]) -> list[list[str]]:
    """Return lines of cells: of each contestant its accuracy at each deadline, and how much was in time, in percent."""
    deadlines = [f"{one.deadline_ms:g} ms (in time)" for one in curves[0].points]
    lines = [[*HEAD, *deadlines]]
    for curve in curves:
        cells = [f"{100 * one.accuracy:.1f} ({100 * one.in_time:.0f})" for one in curve.points]
        lines.append([f"{curve.rate:.3g}", curve.contestant, f"{100 * curve.area:.1f}", *cells])
    return lines


def figure(curves: Sequence[Curve]) -> str:
    """Draw accuracy against the deadline, one panel for each load; return it as a data URL."""
    rates = list(dict.fromkeys(curve.rate for curve in curves))
    fig, axes = panels(1, len(rates), (4.2, 3.0), (0.5, 0.5), (0.6, 0.15, 0.35, 0.95), sharey=True)
    for axis, rate in zip(axes[0], rates, strict=True):
        for curve in (one for one in curves if one.rate == rate):
            points = [(one.deadline_ms, 100 * one.accuracy) for one in curve.points]
            axis.plot(*zip(*points, strict=True), marker="o", markersize=3.5, label=curve.contestant)
        axis.set(xscale="log", title=f"{rate:.3g} questions a second")
        axis.set_xticks(deadlines := [one.deadline_ms for one in curves[0].points], [f"{ms:g}" for ms in deadlines])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0, 0].set_ylim(0, 100)
    axes[0, 0].set_ylabel("right and in time, %")
    add_legend(fig, axes[0, 0], "deadline, ms")
    return data_url(drawn(fig), "svg")


def page(found: Found, figures: Mapping[str, Any]) -> str:
    """Return the page as HTML; figures: as the benchmark prints them."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ada.bench.deadline", ""), autoescape=True, undefined=jinja2.StrictUndefined
    )
    shown = {"found": found, "figures": figures, "table": table(found.curves), "curves": figure(found.curves)}
    return environment.get_template("page.html.j2").render(shown)
