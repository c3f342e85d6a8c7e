"""Right or wrong, how often, and how sure that is."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ada.eval.question_file import Question

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


@dataclass(frozen=True)
class Difference:
    """How much more of the same questions one side gets right, and the reach of its 95 % interval on each side."""

    share: float
    reach: float

    @classmethod
    def of(cls, one: Sequence[bool], other: Sequence[bool]) -> Difference:
        """Paired: questions that both sides get right, or both wrong, say nothing about their difference."""
        n = len(one)
        gains = sum(a and not b for a, b in zip(one, other, strict=True))
        losses = sum(b and not a for a, b in zip(one, other, strict=True))
        spread = gains + losses - (gains - losses) ** 2 / n
        return cls((gains - losses) / n, Z * math.sqrt(spread) / n)


def tally(questions: Sequence[Question], right: Sequence[bool]) -> dict[str, Accuracy]:
    """Accuracy by kind, in the order in which kinds first appear."""
    by_kind: defaultdict[str, list[bool]] = defaultdict(list)
    for question, hit in zip(questions, right, strict=True):
        by_kind[question.category].append(hit)
    return {kind: Accuracy(sum(hits), len(hits)) for kind, hits in by_kind.items()}


def best_constants(questions: Sequence[Question]) -> dict[str, tuple[str, Accuracy]]:
    """By kind, the one answer that would be right most often, and how often: what a model must beat."""
    answers: defaultdict[str, Counter[str]] = defaultdict(Counter)
    spelt: dict[str, str] = {}
    for question in questions:
        answers[question.category][normalise(question.answer)] += 1
        spelt.setdefault(normalise(question.answer), question.answer)
    best = {kind: counts.most_common(1)[0] for kind, counts in answers.items()}
    return {kind: (spelt[answer], Accuracy(n, answers[kind].total())) for kind, (answer, n) in best.items()}


def together(parts: Mapping[str, Accuracy]) -> Accuracy:
    """Over all kinds."""
    return Accuracy(sum(part.correct for part in parts.values()), sum(part.total for part in parts.values()))
