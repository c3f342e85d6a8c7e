"""A device's profile at work: milliseconds -> units, and a correction for what the device does beside.

The budget is kept by a high percentile, not by the mean: predicted p95 = factor * expected. The factor is what ``AIM``
of the last ``WINDOW`` answers' measured / expected times were below, the window being filled with the profile's spread
at first: with 50 answers the second greatest. So one slow answer changes nothing, two tell that the device has changed,
and what a busy spell taught is forgotten ``WINDOW`` answers after it. The factor stays within ``BOUNDS`` of the spread;
``reset`` takes it back.
"""

from __future__ import annotations

import math
import threading
from collections import deque

from ada.calibration.latency_model import Point, decode_terms, predict, prefill_terms
from ada.calibration.profile import AIM, Profile
from ada.units import Units

WINDOW = 50  # answers
RANK = math.ceil(AIM * (WINDOW + 1))  # the next answer is below this one of the window, in order, AIM of the time
BOUNDS = (0.5, 10.0)


class DeviceLatency:
    """Safe between threads."""

    def __init__(self, profile: Profile, units: Units) -> None:
        self.profile, self.units = profile, units
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """Forget what was measured since the calibration."""
        self._ratios = deque([self.profile.spread] * WINDOW, maxlen=WINDOW)
        self.factor = self.profile.spread

    def expected_ms(self, point: Point) -> float:
        """Expected time to first token on the calibrated device, vision tower included, in the middle."""
        return predict(self.profile.prefill, prefill_terms(point, self.units))

    def first_token_ms(self, point: Point) -> float:
        """Predicted p95 of the time to first token, as the device is now."""
        return self.factor * self.expected_ms(point)

    def token_ms(self, point: Point) -> float:
        """Predicted time of a decode step, in the middle; ``point.tokens`` is the context."""
        return predict(self.profile.decode, decode_terms(point, self.units))

    def units_within(self, milliseconds: float, tokens: int, pictures: int) -> int:
        """The most tunable units whose predicted p95 fits; 0 where not even the prefix does."""
        grid = range(self.units.tunable, 0, -1)
        fits = (n for n in grid if self.first_token_ms(Point(tokens, n, pictures)) <= milliseconds)
        return next(fits, 0)

    def observe(self, expected_ms: float, measured_ms: float) -> None:
        """An answer came; ``expected_ms`` is what the calibration makes of it."""
        least, most = (bound * self.profile.spread for bound in BOUNDS)
        with self._lock:
            self._ratios.append(measured_ms / expected_ms)
            self.factor = min(most, max(least, sorted(self._ratios)[RANK - 1]))
