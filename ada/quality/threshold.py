"""Finds how sure a cheap answer's first token must be, so that few accepted answers differ from the full model's.

A promise of at most a share ``a`` that differ is kept with 95 % confidence among as many answers as were validated: the
threshold is the lowest at which the 95th percentile of that share is within ``a``. Of what the validation answers say
the share may be, Clopper and Pearson's posterior (1934, Biometrika 26) is taken, and of the answers to come their own
chance: together a beta-binomial distribution. A bound in expectation, as conformal risk control gives, is kept only
half of the time, and one of the true share alone less often than it says in any number of answers that one can count.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import betabinom

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Validated:
    """A validation answer under a cheap plan: its first token's margin, and whether it differs from the full one."""

    margin: float
    differs: bool


@functools.lru_cache(maxsize=10_000)
def likely_share(different: int, count: int, confidence: float = CONFIDENCE) -> float:
    """Return the share among ``count`` answers to come that is not exceeded with this confidence.

    different: of ``count`` answers seen.
    """
    return (
        1.0 if different >= count else float(betabinom.ppf(confidence, count, different + 1, count - different)) / count
    )


def lowest_threshold(answers: Sequence[Validated], promise: float, confidence: float = CONFIDENCE) -> float | None:
    """Return the lowest margin from which on cheap answers are accepted; None where no promise can be made.

    infinity: none is accepted, which keeps any promise that so many answers can show.
    """
    count = len(answers)
    if not count or likely_share(0, count, confidence) > promise:
        return None
    threshold, different = math.inf, 0
    ordered = sorted(answers, key=lambda one: one.margin, reverse=True)
    for number, one in enumerate(ordered):
        different += one.differs
        if likely_share(different, count, confidence) > promise:
            break
        if number + 1 == count or ordered[number + 1].margin < one.margin:  # equal margins go together
            threshold = one.margin
    return threshold
