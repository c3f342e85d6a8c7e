"""Counts right answers, with 95 % intervals, paired differences and their p-values."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from scipy.stats import binomtest

from ada.eval.questions.exact_match import normalise
from ada.eval.questions.question_set import Item

Z = NormalDist().inv_cdf(0.975)  # standard deviations on each side that hold 95 % of a normal distribution


@dataclass(frozen=True)
class Accuracy:
    """``correct`` of ``total`` answers."""

    correct: int
    total: int

    @property
    def share(self) -> float:
        """Share of right answers, in [0, 1]."""
        return self.correct / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval (low, high) in [0, 1], which is good near 0 and 1 too."""
        found = binomtest(self.correct, self.total).proportion_ci(0.95, method="wilson")
        return float(found.low), float(found.high)

    def to_json(self) -> dict[str, Any]:
        """Return JSON-ready fields; shares are in [0, 1]."""
        return {"correct": self.correct, "total": self.total, "accuracy": self.share, "interval": [*self.interval]}


@dataclass(frozen=True)
class Difference:
    """One side against another on the same ``total`` questions.

    ``gains`` are questions that only the first side gets right, ``losses`` those that only the second does. Questions
    that both get right, or both wrong, say nothing about their difference.
    """

    gains: int
    losses: int
    total: int

    @classmethod
    def of(cls, one: Sequence[bool], other: Sequence[bool]) -> Difference:
        """Pair two sides' marks by position."""
        pairs = list(zip(one, other, strict=True))
        return cls(sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs), len(pairs))

    @property
    def share(self) -> float:
        """How much more the first side gets right, in [-1, 1]."""
        return (self.gains - self.losses) / self.total

    @property
    def reach(self) -> float:
        """Half the width of the difference's 95 % interval."""
        spread = self.gains + self.losses - (self.gains - self.losses) ** 2 / self.total
        return Z * math.sqrt(spread) / self.total

    @property
    def p_value(self) -> float:
        """Two-sided p-value of McNemar's exact test; 1 where no question differs."""
        changed = self.gains + self.losses
        return float(binomtest(self.gains, changed).pvalue) if changed else 1.0

    def to_json(self) -> dict[str, Any]:
        """Return JSON-ready fields; shares are in [-1, 1]."""
        counts = {"gains": self.gains, "losses": self.losses, "total": self.total}
        return {"share": self.share, "reach": self.reach, "p": self.p_value, **counts}


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust each p-value for being one of several (Holm's step-down method); the order stays."""
    adjusted, worst = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = worst
    return adjusted


def tally(items: Sequence[Item], right: Sequence[bool]) -> dict[str, Accuracy]:
    """Count accuracy by kind of question, in the order in which kinds first appear."""
    by_kind: defaultdict[str, list[bool]] = defaultdict(list)
    for item, hit in zip(items, right, strict=True):
        by_kind[item.kind].append(hit)
    return {kind: Accuracy(sum(hits), len(hits)) for kind, hits in by_kind.items()}


def pooled(parts: Iterable[Accuracy]) -> Accuracy:
    """Add up the counts of all parts."""
    counts = [(part.correct, part.total) for part in parts]
    return Accuracy(sum(correct for correct, _ in counts), sum(total for _, total in counts))


def best_constants(items: Sequence[Item]) -> dict[str, tuple[str, Accuracy]]:
    """Return by kind the most frequent true answer, and how often it is right: a baseline for any model."""
    answers: defaultdict[str, Counter[str]] = defaultdict(Counter)
    spelt: dict[str, str] = {}
    for item in items:
        answers[item.kind][normalise(item.truth)] += 1
        spelt.setdefault(normalise(item.truth), item.truth)
    best = {kind: counts.most_common(1)[0] for kind, counts in answers.items()}
    return {kind: (spelt[answer], Accuracy(n, answers[kind].total())) for kind, (answer, n) in best.items()}
