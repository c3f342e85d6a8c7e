"""Models the time of a prefill and of a decode step as a sum of terms with coefficients >= 0.

The plan is made in the middle of a prefill, so its time has two parts: up to the plan, which no plan changes, and from
there to the first token. With T positions that enter the decoder, of which its layers after the prefix read R, C in the
context, p images, of which q lose tokens before the decoder; of the decoder's units the share s that a plan runs in
addition to the prefix, in n layers; g, the share that runs in narrow layers, which are cut when a plan is new (kind H);
and r, 1 where R < T:

    plan = a + b p + c T + f T^2 + i q
    rest = a + c R + l n + d s + e R s + f R^2 s + h g + i r
    step = a + c R + l n + d s + u s^2 + e R s + f C s + h g  (s and n with the prefix)

A step decodes a token of each of R rows, whose contexts are C in all; its a is the loop around it, and u what weights
take that the device's caches do not hold: of a small model's, the more the more run. Of T positions those that are
known take nothing of ``plan`` but to be attended to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.optimize import nnls

from ada.frontier.share import PromptTokens
from ada.scheduling.units import Units

PLAN_TERMS = ("start", "image", "position", "attention", "selection")
REST_TERMS = ("start", "position", "layer", "weights", "products", "attention", "narrow", "selection")
DECODE_TERMS = ("start", "row", "layer", "weights", "uncached", "products", "attention", "narrow")


@dataclass(frozen=True)
class Workload:
    """What a prediction is made for: positions that enter the decoder (image tokens and latency token included),
    tunable units in addition to the prefix, and images.

    late_tokens: positions that the layers after the prefix read, None for all; num_selected: images of which tokens are
    left out before the decoder; rows: that a decode step has, ``num_tokens`` being their contexts' sum; known_tokens:
    the first positions, on which the prefix layers do not run.
    """

    num_tokens: int
    num_units: int
    num_images: int
    late_tokens: int | None = None
    num_selected: int = 0
    rows: int = 1
    known_tokens: int = 0

    @classmethod
    def of(cls, tokens: PromptTokens, num_units: int, num_images: int, late_from_prefix: bool = True) -> Workload:
        """Return the workload of a prompt.

        num_images: that the vision tower sees. late_from_prefix: later layers read fewer tokens from layer P on, or
        before it; if not, the layers after the prefix are taken to read all that enter.
        """
        late = tokens.late if late_from_prefix and tokens.late < tokens.front else None
        selected = num_images if tokens.front < tokens.full else 0
        return cls(tokens.front, num_units, num_images, late, selected, known_tokens=tokens.known)

    @property
    def rest_tokens(self) -> int:
        """Positions that the layers after the prefix read."""
        return self.num_tokens if self.late_tokens is None else self.late_tokens


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
        """Return the expected time of a decode step; ``workload.num_tokens`` is the context of its rows."""
        return predict(self.decode, decode_terms(workload, units))


def plan_terms(workload: Workload) -> list[float]:
    """Return the factors of the coefficients of ``PLAN_TERMS``."""
    tokens, new = workload.num_tokens, workload.num_tokens - workload.known_tokens
    return [1.0, workload.num_images, new, new * tokens, workload.num_selected]


def rest_terms(workload: Workload, units: Units) -> list[float]:
    """Return the factors of the coefficients of ``REST_TERMS``."""
    tokens, share = workload.rest_tokens, workload.num_units / units.total
    layers, narrow = _tunable_layers(workload, units), _narrow_share(workload, units)
    selects = float(tokens < workload.num_tokens)
    return [1.0, tokens, layers, share, tokens * share, tokens**2 * share, narrow, selects]


def decode_terms(workload: Workload, units: Units, in_loop: bool = True) -> list[float]:
    """Return the factors of the coefficients of ``DECODE_TERMS``; ``workload.num_tokens``: the context of its rows.

    in_loop: the step is one of an answer's, with what chooses its token and may end it.
    """
    share, rows = units.fraction(workload.num_units), workload.rows
    layers = units.num_prefix_layers + _tunable_layers(workload, units)
    narrow = _narrow_share(workload, units)
    context = workload.num_tokens * share
    return [float(in_loop), rows, layers, share, share**2, rows * share, context, narrow]


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
