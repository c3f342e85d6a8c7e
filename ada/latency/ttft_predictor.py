"""A device's profile at work: milliseconds -> units, and a correction for what the device does beside.

A budget is kept by a high percentile, not by the mean. Before a call: predicted p95 = factor * expected. As the plan is
made, the time that the call has taken tells how fast the device is now, as no earlier call can: pace = taken / expected
of that part, and p95 = taken + rest_factor * pace * expected of the rest. So a call that went slowly is granted less,
and one that went well gets what is left.

Both factors are what ``TARGET_QUANTILE`` of the last ``WINDOW`` answers' measured over expected times were below, the
windows being filled with the profile's spreads at first: with 50 answers the second greatest. So one slow answer
changes nothing, two show that the device has changed, and what a busy spell taught is forgotten ``WINDOW`` answers
later. Where little is left to do after the plan, its time is mostly noise and says nothing of other plans': it teaches
``factor`` alone. A
factor stays within ``BOUNDS`` of its spread; ``reset`` takes both back.
"""

from __future__ import annotations

import math
import threading
from collections import deque

from ada.latency.device_profile import TARGET_QUANTILE, Profile
from ada.latency.latency_model import (
    NO_TIME_ELAPSED,
    Elapsed,
    PrefillTiming,
    Workload,
    decode_terms,
    plan_terms,
    predict,
    rest_terms,
)
from ada.scheduling.units import Units

WINDOW = 50  # answers
RANK = math.ceil(
    TARGET_QUANTILE * (WINDOW + 1)
)  # the next answer is below this one of the window, in order, TARGET_QUANTILE of the time
BOUNDS = (0.5, 10.0)
LEAST_REST = 0.2  # of the expected time to first token


class Correction:
    """The factor of one kind of time, learnt from measured over expected ones."""

    def __init__(self, spread: float) -> None:
        self.least, self.most = (bound * spread for bound in BOUNDS)
        self.ratios = deque([spread] * WINDOW, maxlen=WINDOW)
        self.factor = spread

    def observe(self, ratio: float) -> None:
        """One more."""
        self.ratios.append(ratio)
        self.factor = min(self.most, max(self.least, sorted(self.ratios)[RANK - 1]))


class TTFTPredictor:
    """Safe between threads."""

    def __init__(self, profile: Profile, units: Units) -> None:
        self.profile, self.units = profile, units
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """Forget what was measured since the calibration."""
        self._first, self._rest = Correction(self.profile.spread), Correction(self.profile.rest_spread)

    @property
    def factor(self) -> float:
        """Predicted p95 over expected time to first token, before a call."""
        return self._first.factor

    def fixed(self) -> FixedTTFTPredictor:
        """The calibration as it is."""
        return FixedTTFTPredictor(self.profile, self.units)

    def expected(self, point: Workload) -> PrefillTiming:
        """What a call takes on the calibrated device, vision tower included, in the middle."""
        plan = predict(self.profile.plan, plan_terms(point))
        return PrefillTiming(plan, plan + predict(self.profile.rest, rest_terms(point, self.units)))

    def first_token_ms(self, point: Workload, gone: Elapsed = NO_TIME_ELAPSED) -> float:
        """Predicted p95 of the time from the question to the first token, as the device is now."""
        expected = self.expected(point)
        if gone.to_plan_ms is None:
            return gone.preprocess_ms + self._first.factor * expected.ttft_ms
        return gone.preprocess_ms + gone.to_plan_ms + self._rest.factor * _at_pace(expected, gone.to_plan_ms)

    def token_ms(self, point: Workload) -> float:
        """Predicted time of a decode step, in the middle; ``point.num_tokens`` is the context."""
        return predict(self.profile.decode, decode_terms(point, self.units))

    def units_within(self, milliseconds: float, tokens: int, pictures: int, gone: Elapsed = NO_TIME_ELAPSED) -> int:
        """The most tunable units whose predicted p95 fits; 0 where not even the prefix does."""
        grid = range(self.units.tunable, 0, -1)
        fits = (n for n in grid if self.first_token_ms(Workload(tokens, n, pictures), gone) <= milliseconds)
        return next(fits, 0)

    def observe(self, expected: PrefillTiming, measured: PrefillTiming) -> None:
        """An answer came; ``expected`` is what the calibration makes of it."""
        with self._lock:
            self._first.observe(measured.ttft_ms / expected.ttft_ms)
            if is_remainder_significant(expected):
                self._rest.observe(rest_ratio(expected, measured))


class FixedTTFTPredictor(TTFTPredictor):
    """The calibration as it is: neither a call's own clock nor earlier calls change what is granted."""

    def first_token_ms(self, point: Workload, gone: Elapsed = NO_TIME_ELAPSED) -> float:
        """Predicted p95 of the time to first token."""
        return super().first_token_ms(point)

    def observe(self, expected: PrefillTiming, measured: PrefillTiming) -> None:
        """Learn nothing."""


def _at_pace(expected: PrefillTiming, plan_ms: float) -> float:
    """Expected milliseconds behind the plan, at the pace of those in front of it."""
    return plan_ms / expected.to_plan_ms * (expected.ttft_ms - expected.to_plan_ms)


def is_remainder_significant(expected: PrefillTiming) -> bool:
    """Whether so much is expected behind the plan that its time can be told from noise."""
    return expected.ttft_ms - expected.to_plan_ms >= LEAST_REST * expected.ttft_ms


def rest_ratio(expected: PrefillTiming, measured: PrefillTiming) -> float:
    """Measured over expected time behind the plan, at the pace of the time in front of it."""
    return (measured.ttft_ms - measured.to_plan_ms) / _at_pace(expected, measured.to_plan_ms)
