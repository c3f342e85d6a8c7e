"""Prints figures and goals of the decode benchmark as tables, and the time that a line of progress comes after."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.table import Table

from ada.bench.decode.goals import Goal, Line

WIDTH = 120
COLUMNS = (
    "positions",
    "rows",
    "budget",
    "share",
    "way",
    "first token, ms\n(over transformers, over full)",
    "a token, ms\n(over transformers, over full)",
    "of the memory's\nbandwidth",
)


def progress_since(start: float) -> Callable[[str], None]:
    """Return what prints a line of progress on stderr, with the seconds since ``start``."""

    def say(text: str) -> None:
        print(f"[{time.perf_counter() - start:5.0f} s] {text}", file=sys.stderr, flush=True)

    return say


def show_lines(lines: Sequence[Line]) -> None:
    """Print a table for each model."""
    for model, group in groupby(lines, lambda line: line["model"]):
        own = [*group]
        table = Table(title=f"{model}, medians over rounds, of which there were {own[0]['rounds']}")
        for column in COLUMNS:
            table.add_column(column, justify="left" if column == "way" else "right")
        for line in own:
            table.add_row(*_cells(line))
        Console(width=WIDTH).print(table)


def _cells(line: Line) -> list[str]:
    new = f", {line['new_plan_ms']:+.1f} ms" if "new_plan_ms" in line else ""
    return [
        str(line["positions"]),
        str(line["rows"]),
        f"{line['budget']:g}",
        _number(line.get("share")),
        line["way"] + new,
        *(
            f"{line[f'{what}_ms']:.{digits}f} ({_number(line[f'{what}_over_transformers'])}, "
            f"{_number(line[f'{what}_over_full'])})"
            for what, digits in (("first", 1), ("token", 2))
        ),
        _number(line.get("bandwidth_share")),
    ]


def show_goals(goals: Sequence[Goal]) -> None:
    """Print a table of the goals."""
    table = Table(title="goals")
    for column in ("goal", "at most", "measured", "met"):
        table.add_column(column, justify="left" if column == "goal" else "right")
    words = {True: "yes", False: "no", None: ""}
    for goal in goals:
        table.add_row(goal.what, _number(goal.maximum, 3), _number(goal.measured, 3), words[goal.met])
    Console(width=WIDTH).print(table)


def _number(value: Any, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
