"""Compares figures with the goals of the decode engine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ada.bench.decode.rounds import NEW_PLAN
from ada.bench.decode.subject import BUNDLED, SMOL, STACK
from ada.bench.decode.ways import ENGINE

Line = Mapping[str, Any]  # of ``summary.lines``

TOKEN_OVER_TRANSFORMERS = 0.60  # the bundled models, full
FIRST_OVER_TRANSFORMERS, FIRST_POSITIONS = 0.65, 60  # the bundled models, full
ABOVE_SHARE = {BUNDLED: 0.08, STACK: 0.04}  # a step at a plan over a full one, above the plan's share
SMOL_OVER_FULL, SMOL_BUDGET, SMOL_POSITIONS = 0.65, 0.5, 150  # of both tokens, from so many positions up
GPU_FULL_MS, GPU_NEW_PLAN_MS, GPU_FIRST_OVER_FULL = 6.3, 5.0, 0.62
GPU_TOKEN_OVER_FULL = {("H", 0.75): 0.82, ("H", 0.5): 0.62, ("L", 0.75): 0.79, ("L", 0.5): 0.58}


@dataclass(frozen=True)
class Goal:
    """A figure, and the maximum that it is to have; None where it was not measured."""

    what: str
    maximum: float
    measured: float | None

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None without a figure."""
        return None if self.measured is None else self.measured <= self.maximum

    def to_json(self) -> dict[str, Any]:
        """Return the goal as JSON-ready fields."""
        return {"goal": self.what, "maximum": self.maximum, "measured": self.measured, "met": self.met}


def decode_goals(lines: Iterable[Line]) -> list[Goal]:
    """Return the goals of one row, on any device."""
    return [goal for line in _engine_lines(lines, rows=1) for goal in _of_line(line)]


def _of_line(line: Line) -> Iterator[Goal]:
    name, about = line["model"], f"{line['model']}, {line['positions']} positions"
    if name.startswith(SMOL):
        if line["budget"] == SMOL_BUDGET and line["positions"] >= SMOL_POSITIONS:
            for what, figure in (("the first token", "first_over_full"), ("a token", "token_over_full")):
                yield Goal(f"{about}: {what} at {SMOL_BUDGET:g} over full", SMOL_OVER_FULL, line[figure])
    elif line["budget"] < 1:
        maximum = line["share"] + ABOVE_SHARE[name.rpartition(" ")[0]]
        yield Goal(f"{about}: a token at {line['budget']:g} over full", round(maximum, 4), line["token_over_full"])
    elif name.startswith(BUNDLED):
        figure = line["token_over_transformers"]
        yield Goal(f"{about}: a token over transformers", TOKEN_OVER_TRANSFORMERS, figure)
        if line["positions"] == FIRST_POSITIONS:
            figure = line["first_over_transformers"]
            yield Goal(f"{about}: the first token over transformers", FIRST_OVER_TRANSFORMERS, figure)


def gpu_goals(lines: Sequence[Line]) -> list[Goal]:
    """Return the goals of 32 layers with 7B shapes in bfloat16 on one H100."""
    goals = []
    for line in _engine_lines(lines, rows=1):
        kind, about = line["model"].rpartition(" ")[2], f"{line['model']} at {line['budget']:g}"
        if line["budget"] == 1:
            goals.append(Goal(f"{about}: ms a token", GPU_FULL_MS, line["token_ms"]))
            continue
        maximum = GPU_TOKEN_OVER_FULL.get((kind, line["budget"]))
        if maximum is not None:
            goals.append(Goal(f"{about}: a token over full", maximum, line["token_over_full"]))
        if line["budget"] == 0.5:
            goals.append(Goal(f"{about}: the first token over full", GPU_FIRST_OVER_FULL, line["first_over_full"]))
    for line in lines:
        if line["way"] == NEW_PLAN and line["rows"] == 1:
            about = f"{line['model']} at {line['budget']:g}"
            goals.append(Goal(f"{about}: ms until another plan is served", GPU_NEW_PLAN_MS, line.get("new_plan_ms")))
    return goals


def _engine_lines(lines: Iterable[Line], rows: int) -> list[Line]:
    return [line for line in lines if line["way"] == ENGINE and line["rows"] == rows]
