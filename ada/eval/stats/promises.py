"""Chooses and counts promises of quality: thresholds on some answers, what they keep on others."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from ada.quality.table import Promise
from ada.quality.threshold import CONFIDENCE, Validated, lowest_threshold

SEED = 0


@dataclass(frozen=True)
class Tried:
    """A cheap answer: the margin of its first token, whether it differs from the full one, and operations.

    share: of the full model's operations that the try takes; again: that the full model takes after a refused try.
    """

    margin: float
    differs: bool
    share: float
    again: float


Tries = Mapping[float, Sequence[Tried]]
"""Cheap budget -> answers to the same questions, in the same order."""


@dataclass(frozen=True)
class Counted:
    """What a threshold does: shares of answers that are accepted, and accepted though different, and of operations."""

    accepted: float
    different: float
    share: float


def count(tries: Sequence[Tried], threshold: float) -> Counted:
    """Count a threshold on answers."""
    accepted = [one.margin >= threshold for one in tries]
    costs = (one.share + (0.0 if stands else one.again) for one, stands in zip(tries, accepted, strict=True))
    different = [stands and one.differs for one, stands in zip(tries, accepted, strict=True)]
    return Counted(fmean(accepted), fmean(different), fmean(costs))


def cheapest(tries: Tries, disagreement: float) -> Promise | None:
    """Return the promise whose budget takes the fewest operations; None where so few answers can make none.

    The cheapest of several is often the one that was lucky on these answers. So each has to keep the promise with so
    much more confidence that all of them do together (Bonferroni).
    """
    found, confidence = [], 1 - (1 - CONFIDENCE) / len(tries)
    for budget, of in tries.items():
        threshold = lowest_threshold([Validated(one.margin, one.differs) for one in of], disagreement, confidence)
        if threshold is not None:
            counted = count(of, threshold)
            found.append(
                Promise(
                    disagreement,
                    budget,
                    threshold,
                    counted.share,
                    counted.accepted,
                    counted.different,
                    len(of),
                )
            )
    return min(found, key=lambda one: one.share, default=None)


def held_in_resplits(tries: Tries, disagreement: float, validation: int, splits: int) -> tuple[float, float]:
    """Return in what share of random splits a promise holds on the part that it was not chosen on, and mean operations.

    validation: how many answers it is chosen on.
    """
    rng, total = random.Random(SEED), len(next(iter(tries.values())))
    held, shares = [], []
    for _ in range(splits):
        order = rng.sample(range(total), total)
        chosen, others = order[:validation], order[validation:]
        promise = cheapest({budget: [of[i] for i in chosen] for budget, of in tries.items()}, disagreement)
        if promise is None:
            return math.nan, math.nan
        counted = count([tries[promise.budget][i] for i in others], promise.threshold)
        held.append(counted.different <= disagreement)
        shares.append(counted.share)
    return fmean(held), fmean(shares)


def promise_table(
    promises: Sequence[Promise],
    wanted: Sequence[float],
    test: Tries | None,
    held: Mapping[float, tuple[float, float]],
) -> str:
    """Return a Markdown table of promises; test: answers to count them on; held: of ``held_in_resplits``."""
    by_share = {one.disagreement: one for one in promises}
    titles = "promise,cheap budget,margin,accepted,different,operations,test: accepted,different,operations"
    columns = [*titles.split(","), "re-splits kept", "operations"]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for share in wanted:
        one = by_share.get(share)
        if one is None:
            lines.append(f"| {share:.1%} | too few questions |" + " - |" * 9)
            continue
        cells = [f"{share:.1%}", f"{one.budget:g}", f"{one.threshold:.3g}"]
        cells += [f"{one.accepted:.1%}", f"{one.different:.2%}", f"{one.share:.3f}"]
        if test is None:
            cells += ["-"] * 3
        else:
            counted = count(test[one.budget], one.threshold)
            cells += [f"{counted.accepted:.1%}", f"{counted.different:.2%}", f"{counted.share:.3f}"]
        cells += [f"{held[share][0]:.0%}", f"{held[share][1]:.3f}"] if share in held else ["-"] * 2
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
