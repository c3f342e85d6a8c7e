"""Right or wrong, how often, and how sure that is."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ada.eval.questions.question_set import Item

Z = 1.959964  # standard deviations on each side that hold 95 % of a normal distribution


def normalise(answer: str) -> str:
    """Answers are compared in lower case, without surrounding space and without a full stop."""
    return answer.strip().lower().removesuffix(".").rstrip()


def is_right(given: str, expected: str) -> bool:
    """Exact match of the normalised answers."""
    return normalise(given) == normalise(expected)


@dataclass(frozen=True)
class Accuracy:
    """``correct`` of ``total`` answers; the ends of its 95 % interval are Wilson's, good near 0 and 1 too."""

    correct: int
    total: int

    @property
    def share(self) -> float:
        """In [0, 1]."""
        return self.correct / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """(low, high), in [0, 1]."""
        n, p, z2 = self.total, self.share, Z * Z
        middle = (p + z2 / (2 * n)) / (1 + z2 / n)
        reach = Z / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
        return max(0.0, min(p, middle - reach)), min(1.0, max(p, middle + reach))  # p within, whatever the rounding

    def to_json(self) -> dict[str, Any]:
        """JSON-ready; shares are in [0, 1]."""
        return {"correct": self.correct, "total": self.total, "accuracy": self.share, "interval": [*self.interval]}


@dataclass(frozen=True)
class Difference:
    """One side against another on the same ``total`` questions: ``gains`` that only the one gets right, ``losses`` that
    only the other does. Questions that both get right, or both wrong, say nothing about their difference."""

    gains: int
    losses: int
    total: int

    @classmethod
    def of(cls, one: Sequence[bool], other: Sequence[bool]) -> Difference:
        """Paired by position."""
        pairs = list(zip(one, other, strict=True))
        return cls(sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs), len(pairs))

    @property
    def share(self) -> float:
        """How much more the one side gets right, in [-1, 1]."""
        return (self.gains - self.losses) / self.total

    @property
    def reach(self) -> float:
        """Of the difference's 95 % interval, on each side."""
        spread = self.gains + self.losses - (self.gains - self.losses) ** 2 / self.total
        return Z * math.sqrt(spread) / self.total

    @property
    def p_value(self) -> float:
        """McNemar's exact test, two-sided: were gains and losses as likely as heads and tails, how often would they
        be this far apart? Counted in whole numbers."""
        n = self.gains + self.losses
        tail = sum(math.comb(n, k) for k in range(min(self.gains, self.losses) + 1))
        return min(1.0, 2 * tail / (1 << n))

    def to_json(self) -> dict[str, Any]:
        """JSON-ready; shares are in [-1, 1]."""
        counts = {"gains": self.gains, "losses": self.losses, "total": self.total}
        return {"share": self.share, "reach": self.reach, "p": self.p_value, **counts}


def holm(p_values: Sequence[float]) -> list[float]:
    """Each p-value adjusted for being one of several (Holm's step-down method), in the same order."""
    adjusted, worst = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = worst
    return adjusted


def tally(items: Sequence[Item], right: Sequence[bool]) -> dict[str, Accuracy]:
    """Accuracy by kind, in the order in which kinds first appear."""
    by_kind: defaultdict[str, list[bool]] = defaultdict(list)
    for item, hit in zip(items, right, strict=True):
        by_kind[item.kind].append(hit)
    return {kind: Accuracy(sum(hits), len(hits)) for kind, hits in by_kind.items()}


def best_constants(items: Sequence[Item]) -> dict[str, tuple[str, Accuracy]]:
    """By kind, the one answer that would be right most often, and how often: what a model must beat."""
    answers: defaultdict[str, Counter[str]] = defaultdict(Counter)
    spelt: dict[str, str] = {}
    for item in items:
        answers[item.kind][normalise(item.truth)] += 1
        spelt.setdefault(normalise(item.truth), item.truth)
    best = {kind: counts.most_common(1)[0] for kind, counts in answers.items()}
    return {kind: (spelt[answer], Accuracy(n, answers[kind].total())) for kind, (answer, n) in best.items()}


def together(parts: Iterable[Accuracy]) -> Accuracy:
    """Over all parts."""
    counts = [(part.correct, part.total) for part in parts]
    return Accuracy(sum(correct for correct, _ in counts), sum(total for _, total in counts))
