"""Scores outcomes at deadlines: accuracy where late is wrong, the area below its curve, and goodput."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ada.bench.deadline.client import Outcome


@dataclass(frozen=True)
class Point:
    """One deadline. accuracy: share of all requests answered rightly and in time; in_time: answered in time at all.

    refused: by the server; lost: without an answer or a refusal. goodput: right answers in time, a second of the load.
    """

    deadline_ms: float
    requests: int
    accuracy: float
    in_time: float
    refused: float
    lost: float
    goodput: float


def point(outcomes: Sequence[Outcome], deadline_ms: float, span_s: float) -> Point:
    """Score the outcomes of requests that came within ``span_s`` seconds."""
    count = len(outcomes)
    timely = [one for one in outcomes if one.failure is None and 1000 * one.total_s <= deadline_ms]
    right = sum(one.right for one in timely)
    lost = sum(one.failure is not None and one.status in (0, 200) for one in outcomes)
    refused = sum(one.failure is not None for one in outcomes) - lost
    return Point(deadline_ms, count, right / count, len(timely) / count, refused / count, lost / count, right / span_s)


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
