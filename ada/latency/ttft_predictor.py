"""Predicts the time to first token from a device's profile, and corrects it for what the device is doing now.

A budget is met by a high percentile, not by the mean. Before a call: predicted p95 = factor * expected. As the plan is
made, the time that the call has taken shows how fast the device is now, as no earlier call can: pace = taken / expected
of that part, and p95 = taken + rest_factor * pace * expected of the rest. So a call that went slowly is granted less,
and one that went well gets what is left.

Both factors are what ``TARGET_QUANTILE`` of the last ``WINDOW`` answers' measured over expected times were below, the
windows being filled with the profile's spreads at first: with 50 answers the second greatest. So one slow answer
changes nothing, two show that the device has changed, and what a busy spell taught is forgotten ``WINDOW`` answers
later. Where little is left to do after the plan, its time is mostly noise and says nothing of other plans': it teaches
``factor`` alone. A factor stays within ``BOUNDS`` of its spread; ``reset`` takes both back.
"""

from __future__ import annotations

import math
import threading
from bisect import bisect_left
from collections import deque
from dataclasses import replace

from ada.latency.device_profile import TARGET_QUANTILE, Profile
from ada.latency.latency_model import NO_TIME_ELAPSED, Elapsed, PrefillTiming, Workload
from ada.scheduling.units import Units

WINDOW = 50  # answers
RANK = math.ceil(TARGET_QUANTILE * (WINDOW + 1))  # TARGET_QUANTILE of next answers are below this one of the window
BOUNDS = (0.5, 10.0)
MIN_REMAINDER = 0.2  # of the expected time to first token


class Correction:
    """Learns the factor of one kind of time from measured over expected ones."""

    def __init__(self, spread: float) -> None:
        self.minimum, self.maximum = (bound * spread for bound in BOUNDS)
        self.ratios = deque([spread] * WINDOW, maxlen=WINDOW)
        self.factor = spread

    def observe(self, ratio: float) -> None:
        """Add one answer's ratio to the window, and update the factor."""
        self.ratios.append(ratio)
        self.factor = min(self.maximum, max(self.minimum, sorted(self.ratios)[RANK - 1]))


class TTFTPredictor:
    """Predicts times to first token from a device's profile, corrected by what calls take. Thread-safe."""

    def __init__(self, profile: Profile, units: Units) -> None:
        self.profile, self.units = profile, units
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """Forget what was measured since the calibration."""
        self._first, self._rest = Correction(self.profile.spread), Correction(self.profile.rest_spread)

    @property
    def factor(self) -> float:
        """Predicted p95 over expected (median) time to first token, before a call."""
        return self._first.factor

    def fixed(self) -> FixedTTFTPredictor:
        """Return a predictor that uses the calibration as it is and learns nothing."""
        return FixedTTFTPredictor(self.profile, self.units)

    def expected(self, workload: Workload) -> PrefillTiming:
        """Return the median times of a call on the calibrated device, vision tower included, in milliseconds."""
        return self.profile.latency_model.prefill(workload, self.units)

    def first_token_ms(self, workload: Workload, elapsed: Elapsed = NO_TIME_ELAPSED) -> float:
        """Return the predicted p95 of the time from the question to the first token, as the device is now.

        elapsed: what had passed when the call began, and, once the plan is due, since then.
        """
        expected = self.expected(workload)
        if elapsed.to_plan_ms is None:
            return elapsed.preprocess_ms + self._first.factor * expected.ttft_ms
        rest_ms = self._rest.factor * _at_pace(expected, elapsed.to_plan_ms)
        return elapsed.preprocess_ms + elapsed.to_plan_ms + rest_ms

    def token_ms(self, workload: Workload) -> float:
        """Return the median inter-token latency in milliseconds; ``workload.num_tokens`` is the context."""
        return self.profile.latency_model.inter_token_ms(workload, self.units)

    def units_within(self, milliseconds: float, workload: Workload, elapsed: Elapsed = NO_TIME_ELAPSED) -> int:
        """Return the maximum of tunable units whose predicted p95 fits; 0 where not even the prefix does.

        workload: what is asked, whose own units do not count.
        """

        def fits(num_units: int) -> bool:
            return self.first_token_ms(replace(workload, num_units=num_units), elapsed) <= milliseconds

        if fits(self.units.tunable):  # it cuts no layers, and may take less than what is a little smaller
            return self.units.tunable
        return max(0, bisect_left(range(self.units.tunable), True, key=lambda num_units: not fits(num_units)) - 1)

    def observe(self, expected: PrefillTiming, measured: PrefillTiming) -> None:
        """Learn from an answer; ``expected`` is what the calibration predicts for it."""
        with self._lock:
            self._first.observe(measured.ttft_ms / expected.ttft_ms)
            if is_remainder_significant(expected):
                self._rest.observe(rest_ratio(expected, measured))


class FixedTTFTPredictor(TTFTPredictor):
    """Predicts by the calibration as it is: neither a call's own clock nor earlier calls change what is granted."""

    def first_token_ms(self, workload: Workload, elapsed: Elapsed = NO_TIME_ELAPSED) -> float:
        """Return the predicted p95 of the time to first token; ``elapsed`` is not counted."""
        return super().first_token_ms(workload)

    def observe(self, expected: PrefillTiming, measured: PrefillTiming) -> None:
        """Learn nothing from the answer."""


def _at_pace(expected: PrefillTiming, to_plan_ms: float) -> float:
    """Expected milliseconds after the plan, at the pace of those before it."""
    return to_plan_ms / expected.to_plan_ms * (expected.ttft_ms - expected.to_plan_ms)


def is_remainder_significant(expected: PrefillTiming) -> bool:
    """Return whether so much time is expected after the plan that it stands out from noise."""
    return expected.ttft_ms - expected.to_plan_ms >= MIN_REMAINDER * expected.ttft_ms


def rest_ratio(expected: PrefillTiming, measured: PrefillTiming) -> float:
    """Return measured over expected time after the plan, at the pace of the time before it."""
    return (measured.ttft_ms - measured.to_plan_ms) / _at_pace(expected, measured.to_plan_ms)
