"""Finds how sure a cheap answer's first token must be, so that few accepted answers differ from the full model's.

A promise of at most a share ``a`` that differ is kept with 95 % confidence: the threshold is the lowest at which the
upper end of Clopper and Pearson's interval (1934, Biometrika 26) of "accepted and different" among the validation
answers is within ``a``. A bound in expectation, as conformal risk control gives, is kept only half of the time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import beta

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Validated:
    """A validation answer under a cheap plan: its first token's margin, and whether it differs from the full one."""

    margin: float
    differs: bool


def upper_bound(different: int, count: int) -> float:
    """Return the upper end of the one-sided interval of a share of which ``different`` of ``count`` were seen."""
    return 1.0 if different >= count else float(beta.ppf(CONFIDENCE, different + 1, count - different))


def lowest_threshold(answers: Sequence[Validated], promise: float) -> float | None:
    """Return the lowest margin from which on cheap answers are accepted; None where no promise can be made.

    infinity: none is accepted, which keeps any promise that so many answers can show.
    """
    count = len(answers)
    if not count or upper_bound(0, count) > promise:
        return None
    threshold, different = math.inf, 0
    ordered = sorted(answers, key=lambda one: one.margin, reverse=True)
    for number, one in enumerate(ordered):
        different += one.differs
        if upper_bound(different, count) > promise:
            break
        if number + 1 == count or ordered[number + 1].margin < one.margin:  # equal margins go together
            threshold = one.margin
    return threshold
