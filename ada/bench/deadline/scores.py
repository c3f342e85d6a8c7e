"""Scores outcomes at deadlines: accuracy where late is wrong, the area below its curve, and goodput."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ada.bench.deadline.client import Outcome, refuses


@dataclass(frozen=True)
class Point:
    """One deadline. accuracy: share of all requests answered rightly and in time; in_time: answered in time at all.

    refused: by the server, which says so; lost: without an answer or a refusal. goodput: right answers in time per
    second of the run, from the first request to the last answer.
    """

    deadline_ms: float
    requests: int
    accuracy: float
    in_time: float
    refused: float
    lost: float
    goodput: float


def point(outcomes: Sequence[Outcome], deadline_ms: float, span_s: float) -> Point:
    """Score the outcomes of a run of ``span_s`` seconds."""
    count = len(outcomes)
    timely = [one for one in outcomes if one.failure is None and 1000 * one.total_s <= deadline_ms]
    right = sum(one.right for one in timely)
    refused = sum(one.failure is not None and refuses(one.status) for one in outcomes)
    lost = sum(one.failure is not None for one in outcomes) - refused
    return Point(deadline_ms, count, right / count, len(timely) / count, refused / count, lost / count, right / span_s)


def span_of(times: Sequence[float], outcomes: Sequence[Outcome]) -> float:
    """Return the seconds from the first request to the last answer. times: when each request was due, in seconds."""
    return max(at + one.total_s for at, one in zip(times, outcomes, strict=True)) - times[0]


@dataclass(frozen=True)
class Curve:
    """Points of one contestant under one load. rate: requests a second."""

    contestant: str
    rate: float
    points: Sequence[Point]

    @property
    def area(self) -> float:
        """Mean accuracy over the deadlines' range, on a logarithmic axis: twice the time counts the same anywhere."""
        if len(self.points) == 1:
            return self.points[0].accuracy
        below = sum(
            (left.accuracy + right.accuracy) / 2 * math.log(right.deadline_ms / left.deadline_ms)
            for left, right in itertools.pairwise(self.points)
        )
        return below / math.log(self.points[-1].deadline_ms / self.points[0].deadline_ms)

    def to_json(self) -> dict[str, Any]:
        """Return the curve, JSON-ready."""
        return {"contestant": self.contestant, "rate": self.rate, "area": self.area, "points": _rows(self.points)}


def _rows(points: Sequence[Point]) -> list[Mapping[str, Any]]:
    return [asdict(one) for one in points]
