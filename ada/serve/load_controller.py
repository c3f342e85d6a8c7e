"""The control law of load-adaptive budgets: queue length and measured time in, a multiplier for budgets out.

    wait     = max(waited, waiting requests * seconds per request / slots)
    pressure = (wait - slack) / (patience - slack), within 0 and 1, where slack = patience / 10
    next     = min(1 - (1 - least) * pressure, previous + (1 - least) * elapsed / recovery)

``waited`` is how long the request whose turn it is has waited; the other is what the last one in the queue behind it
may expect. A short queue that never empties shows in the first, a sudden crowd in the second. Waits within the slack
are nobody's concern; a wait of ``patience`` seconds brings ``least``; in between it is a straight line. Down it goes at
once, since every request behind pays for the delay; up it climbs at a limited speed, so that it does not swing between
a drained queue and a full one. Nothing adds up over time: no queue for ``recovery`` seconds, and it is 1 again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from llava.errors import OptionError

SLACK = 0.1  # of the patience


@dataclass(frozen=True)
class LoadController:
    """least: the smallest multiplier, in (0, 1]. patience_s, recovery_s: see above, in seconds."""

    least: float
    patience_s: float = 1.0
    recovery_s: float = 5.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.least) and 0 < self.least <= 1):
            raise OptionError(f"--adaptive-budget is {self.least:g}; expected a fraction in (0, 1] such as 0.5")
        for flag, value in (("--adaptive-patience", self.patience_s), ("--adaptive-recovery", self.recovery_s)):
            if not (math.isfinite(value) and value > 0):
                raise OptionError(f"{flag} is {value:g}; expected seconds above 0")

    def next(self, previous: float, wait_s: float, elapsed_s: float) -> float:
        """The multiplier in [least, 1] that follows ``previous`` after ``elapsed_s`` seconds."""
        span, slack_s = 1 - self.least, SLACK * self.patience_s
        pressure = min(1.0, max(0.0, (wait_s - slack_s) / (self.patience_s - slack_s)))
        climbed = previous + span * elapsed_s / self.recovery_s
        return max(self.least, min(1 - span * pressure, climbed, 1.0))

    def granted(self, asked: float, multiplier: float) -> float:
        """A budget under load: never more than was asked, and lowered to ``least`` at most."""
        return max(min(asked, self.least), asked * multiplier)
