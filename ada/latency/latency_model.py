"""The time of a prefill and of a decode step as a sum of terms that mean something, with coefficients >= 0.

The plan is made in the middle of a prefill, so that its time has two parts: up to the plan, which no plan changes, and
from there to the first token. With T positions in the prompt, C in the context, p pictures; of the decoder's units the
share s that a plan runs beside the prefix, in n layers; and g, the share that runs in narrow layers, which are gathered
as a plan is new (kind H):

    plan  = a + b p + c T + f T^2
    rest  = a + c T + l n + d s + e T s + f T^2 s + h g
    token = a + l n + d s + f C s + h g                       (s and n with the prefix)

a: starting; b: vision tower and projector; c: what goes with the prompt alone, in ``plan`` the prefix's matrix
products; l: calling a layer, however little of it runs; d: reading the weights; e: the matrix products; f: attention;
h: copying kept weights, and in decode what cut weights take more than whole ones. Coefficients minimise the relative
error, so that short prompts count as much as long ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ada.scheduling.units import Units

PLAN_TERMS = ("start", "picture", "position", "attention")
REST_TERMS = ("start", "position", "layer", "weights", "products", "attention", "narrow")
DECODE_TERMS = ("start", "layer", "weights", "attention", "narrow")


@dataclass(frozen=True)
class Workload:
    """What is run: ``tokens`` positions, pictures' and the latency token's too, ``tunable`` units beside the prefix,
    and ``pictures``."""

    tokens: int
    tunable: int
    pictures: int


class PrefillTiming(NamedTuple):
    """Milliseconds from the call on: until the plan is made, and to the first token."""

    plan: float
    first: float


class Elapsed(NamedTuple):
    """Milliseconds that have gone by: from the question to the call, and from there to its plan, once that is due."""

    before: float = 0.0
    plan: float | None = None


NO_TIME_ELAPSED = Elapsed()


def plan_terms(point: Workload) -> list[float]:
    """The factors of ``PLAN_TERMS``' coefficients."""
    return [1.0, point.pictures, point.tokens, point.tokens**2]


def rest_terms(point: Workload, units: Units) -> list[float]:
    """The factors of ``REST_TERMS``' coefficients."""
    tokens, share = point.tokens, point.tunable / units.total
    return [1.0, tokens, _layers(point, units), share, tokens * share, tokens**2 * share, _narrow(point, units)]


def decode_terms(point: Workload, units: Units) -> list[float]:
    """The factors of ``DECODE_TERMS``' coefficients; ``point.tokens`` is the context."""
    share = units.fraction(point.tunable)
    layers = units.num_prefix_layers + _layers(point, units)
    return [1.0, layers, share, point.tokens * share, _narrow(point, units)]


def _layers(point: Workload, units: Units) -> int:
    """Tunable layers that run: as many as there are units for. A plan that has its units in fewer is faster."""
    return min(point.tunable, units.num_tunable_layers)


def _narrow(point: Workload, units: Units) -> float:
    """The decoder's share in narrow layers: none where all or nothing of the tunable layers runs."""
    cut = units.kind == "H" and 0 < point.tunable < units.tunable
    return point.tunable / units.total if cut else 0.0


def fit(terms: Sequence[Sequence[float]], milliseconds: Sequence[float]) -> list[float]:
    """Coefficients >= 0 of least squared relative error: terms that would be negative are left out, the worst first."""
    times = np.asarray(milliseconds)
    rows = np.asarray(terms) / times[:, None]
    scale = np.abs(rows).max(axis=0)
    kept = [place for place in range(rows.shape[1]) if scale[place] > 0]
    while True:
        solved = np.linalg.lstsq(rows[:, kept] / scale[kept], np.ones(len(times)), rcond=None)[0]
        if not kept or solved.min() >= 0:
            break
        kept.pop(int(solved.argmin()))
    found = np.zeros(rows.shape[1])
    found[kept] = solved / scale[kept]
    return [float(value) for value in found]


def predict(coefficients: Sequence[float], terms: Sequence[float]) -> float:
    """Milliseconds."""
    return sum(c * x for c, x in zip(coefficients, terms, strict=True))
