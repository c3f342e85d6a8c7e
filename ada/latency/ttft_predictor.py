"""Predicts an answer's times from a device's profile, and corrects them for what the device is doing now.

A budget is met by a high percentile, not by the mean. Before a call: predicted p95 = factor * expected. As the plan is
made, the time that the call has taken shows how fast the device is now, as no earlier call can: pace = taken / expected
of that part, and p95 = taken + rest_factor * pace * expected of the rest. So a call that went slowly is granted less,
and one that went well gets what is left.

Both factors are what ``TARGET_QUANTILE`` of the last ``WINDOW`` answers' measured over expected times were below, the
windows being filled with the profile's spreads at first: with 50 answers the second greatest. So one slow answer
changes nothing, two show that the device has changed, and what a busy spell taught is forgotten ``WINDOW`` answers
later. Where little is left to do after the plan, its time is mostly noise and says nothing of other plans': it teaches
``factor`` alone. A factor stays within ``BOUNDS`` of its spread; ``reset`` takes all back.

Tokens after the first have another factor, which answers with promises for them teach, each with its mean.
"""

from __future__ import annotations

import math
import statistics
import threading
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from ada.budget import TimeBudget
from ada.latency.device_profile import TARGET_QUANTILE, Profile
from ada.latency.latency_model import NO_TIME_ELAPSED, REST_TERMS, Elapsed, PrefillTiming, Workload
from ada.scheduling.units import Units

WINDOW = 50  # answers
BOUNDS = (0.5, 10.0)
MIN_REMAINDER = 0.2  # of the expected time to first token
TOKEN_QUANTILE = (
    0.7  # of later tokens' ratios: what an answer finds to be slower it makes up for, the reverse it cannot
)
TOKEN_SPREAD = 1.03  # of an answer's mean inter-token latency over the expected, before any has been measured
LENGTH_QUANTILE = 0.9  # of answers that are not longer than planned
FIRST_LENGTH = 32  # tokens that answers are planned with before any has been seen


class Correction:
    """Learns the factor of one kind of time from measured over expected ones."""

    def __init__(self, spread: float, quantile: float = TARGET_QUANTILE) -> None:
        self.rank = math.ceil(quantile * (WINDOW + 1))  # ``quantile`` of next answers are below this one of the window
        self.minimum, self.maximum = (bound * spread for bound in BOUNDS)
        self.ratios = deque([spread] * WINDOW, maxlen=WINDOW)
        self.observed = 0
        self.factor = spread

    @property
    def typical(self) -> float:
        """Median of the answers' ratios in the window; 1 before any."""
        seen = [*self.ratios][-min(self.observed, WINDOW) :] if self.observed else [1.0]
        return statistics.median(seen)

    def observe(self, ratio: float) -> None:
        """Add one answer's ratio to the window, and update the factor."""
        self.ratios.append(ratio)
        self.observed += 1
        self.factor = min(self.maximum, max(self.minimum, sorted(self.ratios)[self.rank - 1]))


class TTFTPredictor:
    """Predicts times to first token from a device's profile, corrected by what calls take. Thread-safe."""

    follows_clock = True  # a call's own: what it has taken so far

    def __init__(self, profile: Profile, units: Units) -> None:
        self.profile, self.units = profile, units
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """Forget what was measured since the calibration."""
        self._first, self._rest = Correction(self.profile.spread), Correction(self.profile.rest_spread)
        self._token = Correction(TOKEN_SPREAD, TOKEN_QUANTILE)
        self._slow_token = Correction(self.profile.token_spread)
        self._lengths = deque([FIRST_LENGTH] * WINDOW, maxlen=WINDOW)

    @property
    def factor(self) -> float:
        """Predicted p95 over expected (median) time to first token, before a call."""
        return self._first.factor

    @property
    def typical_factor(self) -> float:
        """Median of measured over expected times to first token, of the last answers; 1 before any."""
        with self._lock:
            return self._first.typical

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

    @property
    def token_factor(self) -> float:
        """Predicted over expected (median) inter-token latency, on an answer's average."""
        return self._token.factor

    def later_ms(self, workload: Workload, later_tokens: int = 0) -> float:
        """Return the predicted inter-token latency, on the average of an answer's later tokens, as the device is now.

        later_tokens: how many they are; of many where it is 0.
        """
        start_ms = self.profile.start_ms / later_tokens if later_tokens else 0.0
        return self.token_factor * (self.token_ms(workload) + start_ms)

    def slow_token_ms(self, workload: Workload, later_tokens: int = 0) -> float:
        """Return the predicted p95 of what ``later_ms`` is about."""
        return self._slow_token.factor / self._token.factor * self.later_ms(workload, later_tokens)

    def change_ms(self, num_units: int) -> float:
        """Return the expected time that going on under another plan takes: cutting layers, slower first steps."""
        narrow = self.profile.rest[REST_TERMS.index("narrow")] if self.units.kind == "H" else 0.0
        cut_ms = narrow * num_units / self.units.total if num_units < self.units.tunable else 0.0
        return cut_ms + self.profile.start_ms

    def planned_tokens(self, limit: int) -> int:
        """Return the tokens that an answer is planned with: as most of the last answers had, at most ``limit``."""
        with self._lock:
            lengths = sorted(self._lengths)
        return max(1, min(limit, lengths[math.ceil(LENGTH_QUANTILE * len(lengths)) - 1]))

    def times(self, budget: TimeBudget, workload: Workload, elapsed: Elapsed = NO_TIME_ELAPSED) -> dict[str, float]:
        """Return the predicted milliseconds of each of the budget's clauses under the workload's units.

        Tokens after the first may run under fewer units: as many as ``tpot`` allows.
        """
        first = self.first_token_ms(workload, elapsed)
        context = replace(workload, num_tokens=workload.num_tokens + budget.later_tokens // 2, late_tokens=None)
        later = self.later_ms(replace(context, num_units=self.token_units(budget, context)), budget.later_tokens)
        every = {"ttft": first, "tpot": later, "total": first + budget.later_tokens * later}
        return {name: every[name] for name, _ in budget.clauses()}

    def minimum(self, budget: TimeBudget, workload: Workload, elapsed: Elapsed = NO_TIME_ELAPSED) -> dict[str, float]:
        """Return the predicted p95 of each of the budget's clauses where all of the answer has the workload's units.

        An answer makes up for slow tokens under fewer units; the cheapest plan cannot.
        """
        context = replace(workload, num_tokens=workload.num_tokens + budget.later_tokens // 2, late_tokens=None)
        first, later = self.first_token_ms(workload, elapsed), self.slow_token_ms(context, budget.later_tokens)
        every = {"ttft": first, "tpot": later, "total": first + budget.later_tokens * later}
        return {name: every[name] for name, _ in budget.clauses()}

    def fits(self, budget: TimeBudget, workload: Workload, elapsed: Elapsed = NO_TIME_ELAPSED) -> bool:
        """Return whether the clauses that limit the prefill are predicted to be kept under the workload's units."""
        times = self.times(budget, workload, elapsed)
        return all(times[name] <= allowed for name, allowed in budget.clauses() if name != "tpot")

    def token_units(self, budget: TimeBudget, workload: Workload) -> int:
        """Return the units that tokens after the first run under: the workload's, or as many as ``tpot`` allows."""
        limit, count = budget.token_ms, budget.later_tokens
        if limit is None or self.later_ms(workload, count) <= limit:
            return workload.num_units
        allowed = self._maximum(lambda units: self.later_ms(replace(workload, num_units=units), count) <= limit)
        return min(workload.num_units, allowed)

    def units_within(self, budget: TimeBudget, workload: Workload, elapsed: Elapsed = NO_TIME_ELAPSED) -> int:
        """Return the maximum of tunable units whose predicted times fit; 0 where not even the prefix does.

        workload: what is asked, whose own units do not count. What only concerns later tokens limits those alone.
        """
        return self._maximum(lambda num_units: self.fits(budget, replace(workload, num_units=num_units), elapsed))

    def _maximum(self, fits: Callable[[int], bool]) -> int:
        """The maximum of tunable units that fit; 0 where none does."""
        if fits(self.units.tunable):  # it cuts no layers, and may take less than what is a little smaller
            return self.units.tunable
        return max(0, bisect_left(range(self.units.tunable), True, key=lambda num_units: not fits(num_units)) - 1)

    def observe(self, expected: PrefillTiming, measured: PrefillTiming) -> None:
        """Learn from an answer; ``expected`` is what the calibration predicts for it."""
        with self._lock:
            self._first.observe(measured.ttft_ms / expected.ttft_ms)
            if is_remainder_significant(expected):
                self._rest.observe(rest_ratio(expected, measured))

    def observe_length(self, count: int) -> None:
        """Learn from an answer how many tokens it had."""
        with self._lock:
            self._lengths.append(count)

    def observe_tokens(self, ratio: float) -> None:
        """Learn from an answer its mean inter-token latency over the expected."""
        with self._lock:
            self._token.observe(ratio)
            self._slow_token.observe(ratio)


class FixedTTFTPredictor(TTFTPredictor):
    """Predicts by the calibration as it is: neither a call's own clock nor earlier calls change what is granted."""

    follows_clock = False

    def first_token_ms(self, workload: Workload, elapsed: Elapsed = NO_TIME_ELAPSED) -> float:
        """Return the predicted p95 of the time to first token; ``elapsed`` is not counted."""
        return super().first_token_ms(workload)

    def observe(self, expected: PrefillTiming, measured: PrefillTiming) -> None:
        """Learn nothing from the answer."""

    def observe_length(self, count: int) -> None:
        """Learn nothing from the answer."""

    def observe_tokens(self, ratio: float) -> None:
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
