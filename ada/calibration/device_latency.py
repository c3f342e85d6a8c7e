"""A device's profile at work: milliseconds -> units, and a correction for what the device does beside.

The budget is kept by a high percentile, not by the mean: predicted p95 = factor * predicted. The factor starts at the
profile's spread and follows a percentile of measured / predicted as answers come (stochastic approximation of a
quantile, Robbins and Monro 1951, on a logarithmic scale): a time above the prediction raises it by ``UP``, a time below
lowers it by so much less that ``AIM`` of the times below keep it where it is. A time above right behind another says
that the device has changed: it raises the factor by half of what was missing, where that is more. The factor stays
within ``BOUNDS`` of the spread; ``reset`` takes it back.
"""

from __future__ import annotations

import math
import threading

from ada.calibration.latency_model import Point, decode_terms, predict, prefill_terms
from ada.calibration.profile import AIM, Profile
from ada.units import Units

UP = 0.07  # natural logarithm: about seven percent
BOUNDS = (0.5, 10.0)


class DeviceLatency:
    """Safe between threads."""

    def __init__(self, profile: Profile, units: Units) -> None:
        self.profile, self.units = profile, units
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """Forget what was measured since the calibration."""
        self.factor, self._missed = self.profile.spread, False

    def first_token_ms(self, point: Point) -> float:
        """Predicted p95 of the time to first token, vision tower included."""
        return self.factor * predict(self.profile.prefill, prefill_terms(point, self.units))

    def token_ms(self, point: Point) -> float:
        """Predicted time of a decode step, in the middle; ``point.tokens`` is the context."""
        return predict(self.profile.decode, decode_terms(point, self.units))

    def units_within(self, milliseconds: float, tokens: int, pictures: int) -> int:
        """The most tunable units whose predicted p95 fits; 0 where not even the prefix does."""
        grid = range(self.units.tunable, 0, -1)
        fits = (n for n in grid if self.first_token_ms(Point(tokens, n, pictures)) <= milliseconds)
        return next(fits, 0)

    def observe(self, predicted_ms: float, measured_ms: float) -> None:
        """An answer came: ``predicted_ms`` was said of it, with the factor of that moment."""
        excess = math.log(measured_ms / predicted_ms)
        least, most = (bound * self.profile.spread for bound in BOUNDS)
        with self._lock:
            if excess > 0:
                step = max(UP, excess / 2) if self._missed else UP
            else:
                step = -UP * (1 - AIM) / AIM
            self.factor = min(most, max(least, self.factor * math.exp(step)))
            self._missed = excess > 0
