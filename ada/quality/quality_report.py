"""Reports which of the two answered under a promise of quality, and why."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class QualityReport:
    """One answer's. disagreement: the promise; stage: "cheap" or "full"; margin: of the cheap answer's first token, and
    threshold, from which on it stands, in nats; refused_flops: of a cheap try that did not stand, without the
    images' features, which the answer uses.
    """

    disagreement: float
    stage: str | None
    margin: float | None
    threshold: float
    refused_flops: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON has them: no infinity."""
        return asdict(self) | {"threshold": self.threshold if math.isfinite(self.threshold) else None}

    def summary(self) -> str:
        """Return a phrase for people."""
        sign = ">=" if self.stage == "cheap" else "<"
        return (
            f"{self.stage} answer (margin {self.margin:.3g} {sign} {self.threshold:.3g}, promise {self.disagreement:g})"
        )
