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
    """What a prediction is made for: positions of the prompt (image tokens and latency token included), tunable units
    in addition to the prefix, and images."""

    num_tokens: int
    num_units: int
    num_images: int


class PrefillTiming(NamedTuple):
    """Milliseconds from the call until the plan is made, and until the first token."""

    to_plan_ms: float
    ttft_ms: float


class Elapsed(NamedTuple):
    """Milliseconds elapsed from the question to the call, and from the call to its plan (None until it is due)."""

    preprocess_ms: float = 0.0
    to_plan_ms: float | None = None


NO_TIME_ELAPSED = Elapsed()


def plan_terms(workload: Workload) -> list[float]:
    """The factors of ``PLAN_TERMS``' coefficients."""
    return [1.0, workload.num_images, workload.num_tokens, workload.num_tokens**2]


def rest_terms(workload: Workload, units: Units) -> list[float]:
    """The factors of ``REST_TERMS``' coefficients."""
    tokens, share = workload.num_tokens, workload.num_units / units.total
    return [1.0, tokens, _layers(workload, units), share, tokens * share, tokens**2 * share, _narrow(workload, units)]


def decode_terms(workload: Workload, units: Units) -> list[float]:
    """The factors of ``DECODE_TERMS``' coefficients; ``workload.num_tokens`` is the context."""
    share = units.fraction(workload.num_units)
    layers = units.num_prefix_layers + _layers(workload, units)
    return [1.0, layers, share, workload.num_tokens * share, _narrow(workload, units)]


def _layers(workload: Workload, units: Units) -> int:
    """Tunable layers that run: as many as there are units for. A plan that has its units in fewer is faster."""
    return min(workload.num_units, units.num_tunable_layers)


def _narrow(workload: Workload, units: Units) -> float:
    """The decoder's share in narrow layers: none where all or nothing of the tunable layers runs."""
    cut = units.kind == "H" and 0 < workload.num_units < units.tunable
    return workload.num_units / units.total if cut else 0.0


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
