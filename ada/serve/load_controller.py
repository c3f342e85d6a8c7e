"""Controller of load-adaptive budgets: from the queue's load to a factor for the budgets of new requests.

    wait     = max(waited, waiting requests * seconds per request / slots)
    pressure = (wait - slack) / (max_wait - slack), clipped to [0, 1], where slack = max_wait / 10
    next     = min(1 - (1 - min_scale) * pressure, previous + (1 - min_scale) * elapsed / recovery)

``waited`` is how long the request whose turn it is has waited; the other term is what the last request in the queue may
expect. A short queue that never empties shows in the first, a burst of requests in the second. Waits within the slack
change nothing; a wait of ``max_wait`` brings ``min_scale``; in between the factor falls linearly. It falls at once,
since every queued request pays for a delay; it rises at a limited speed, so that it does not oscillate between an empty
queue and a full one. Nothing accumulates: without a queue it is 1 again after ``recovery`` seconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from llava.errors import OptionError
from llava.flags import flag

SLACK = 0.1  # of max_queue_wait_s


@dataclass(frozen=True)
class LoadController:
    """Load-adaptive latency budgets of a worker."""

    min_scale: float = flag(
        None,  # off without it
        "minimum budget, in (0, 1], to which budgets of new requests are lowered while requests wait; off by default",
        name="--adaptive-budget",
        metavar="MIN",
    )
    max_queue_wait_s: float = flag(
        1.0,
        "time in the queue, measured or expected, at which --adaptive-budget is reached, in seconds",
        name="--adaptive-patience",
        metavar="SECONDS",
    )
    recovery_s: float = flag(
        5.0,
        "time in which budgets rise from --adaptive-budget back to 1 once nothing waits, in seconds",
        name="--adaptive-recovery",
        metavar="SECONDS",
    )

    def __post_init__(self) -> None:
        if not (math.isfinite(self.min_scale) and 0 < self.min_scale <= 1):
            raise OptionError(f"--adaptive-budget is {self.min_scale:g}; expected a fraction in (0, 1] such as 0.5")
        seconds = {"--adaptive-patience": self.max_queue_wait_s, "--adaptive-recovery": self.recovery_s}
        for name, value in seconds.items():
            if not (math.isfinite(value) and value > 0):
                raise OptionError(f"{name} is {value:g}; expected seconds above 0")

    def next(self, previous: float, wait_s: float, elapsed_s: float) -> float:
        """Return the factor in [min_scale, 1] that follows ``previous`` after ``elapsed_s`` seconds."""
        span, slack_s = 1 - self.min_scale, SLACK * self.max_queue_wait_s
        pressure = min(1.0, max(0.0, (wait_s - slack_s) / (self.max_queue_wait_s - slack_s)))
        risen = previous + span * elapsed_s / self.recovery_s
        return max(self.min_scale, min(1 - span * pressure, risen, 1.0))

    def granted(self, requested: float, scale: float) -> float:
        """Return a budget under load: at most what was requested, and lowered to ``min_scale`` at most."""
        return max(min(requested, self.min_scale), requested * scale)
