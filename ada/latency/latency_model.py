"""Models the time of a prefill and of a decode step as a sum of terms with coefficients >= 0.

The plan is made in the middle of a prefill, so its time has two parts: up to the plan, which no plan changes, and from
there to the first token. With T positions in the prompt, C in the context, p images; of the decoder's units the share s
that a plan runs in addition to the prefix, in n layers; and g, the share that runs in narrow layers, which are cut when
a plan is new (kind H):

    plan  = a + b p + c T + f T^2
    rest  = a + c T + l n + d s + e T s + f T^2 s + h g
    token = a + l n + d s + f C s + h g                       (s and n with the prefix)

a: starting; b: vision tower and projector; c: what grows with the prompt alone, in ``plan`` the prefix's matrix
products; l: calling a layer, however little of it runs; d: reading the weights; e: the matrix products; f: attention;
h: copying kept weights, and in decode what narrow layers take more than dense ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.optimize import nnls

from ada.scheduling.units import Units

PLAN_TERMS = ("start", "image", "position", "attention")
REST_TERMS = ("start", "position", "layer", "weights", "products", "attention", "narrow")
DECODE_TERMS = ("start", "layer", "weights", "attention", "narrow")


@dataclass(frozen=True)
class Workload:
    """What a prediction is made for: positions of the prompt (image tokens and latency token included), tunable units
    in addition to the prefix, and images.
    """

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


@dataclass(frozen=True)
class LatencyModel:
    """Fitted coefficients in milliseconds, in the order of ``PLAN_TERMS``, ``REST_TERMS`` and ``DECODE_TERMS``."""

    plan: list[float]
    rest: list[float]
    decode: list[float]

    def prefill(self, workload: Workload, units: Units) -> PrefillTiming:
        """Return the expected time of a prefill, vision tower included."""
        to_plan_ms = predict(self.plan, plan_terms(workload))
        return PrefillTiming(to_plan_ms, to_plan_ms + predict(self.rest, rest_terms(workload, units)))

    def inter_token_ms(self, workload: Workload, units: Units) -> float:
        """Return the expected time of a decode step; ``workload.num_tokens`` is the context."""
        return predict(self.decode, decode_terms(workload, units))


def plan_terms(workload: Workload) -> list[float]:
    """Return the factors of the coefficients of ``PLAN_TERMS``."""
    return [1.0, workload.num_images, workload.num_tokens, workload.num_tokens**2]


def rest_terms(workload: Workload, units: Units) -> list[float]:
    """Return the factors of the coefficients of ``REST_TERMS``."""
    tokens, share, narrow = workload.num_tokens, workload.num_units / units.total, _narrow_share(workload, units)
    return [1.0, tokens, _tunable_layers(workload, units), share, tokens * share, tokens**2 * share, narrow]


def decode_terms(workload: Workload, units: Units) -> list[float]:
    """Return the factors of the coefficients of ``DECODE_TERMS``; ``workload.num_tokens`` is the context."""
    share = units.fraction(workload.num_units)
    layers = units.num_prefix_layers + _tunable_layers(workload, units)
    return [1.0, layers, share, workload.num_tokens * share, _narrow_share(workload, units)]


def _tunable_layers(workload: Workload, units: Units) -> int:
    """Return how many tunable layers run: as many as there are units for. A plan with fewer layers is faster."""
    return min(workload.num_units, units.num_tunable_layers)


def _narrow_share(workload: Workload, units: Units) -> float:
    """Return the decoder's share in narrow layers: 0 where all or none of the tunable units run."""
    cut = units.kind == "H" and 0 < workload.num_units < units.tunable
    return workload.num_units / units.total if cut else 0.0


def fit(terms: Sequence[Sequence[float]], milliseconds: Sequence[float]) -> list[float]:
    """Fit non-negative coefficients that minimize the squared relative error.

    terms: a row of factors for each measured time. Errors are relative so that short prompts count as much as long
    ones. A term that is 0 in all rows gets 0.
    """
    times = np.asarray(milliseconds)
    rows = np.asarray(terms) / times[:, None]
    scale = np.abs(rows).max(axis=0)
    scale[scale == 0] = 1.0
    coefficients, _ = nnls(rows / scale, np.ones(len(times)))
    return [float(value) for value in coefficients / scale]


def predict(coefficients: Sequence[float], terms: Sequence[float]) -> float:
    """Return the milliseconds of a workload with these terms."""
    return sum(c * x for c, x in zip(coefficients, terms, strict=True))
