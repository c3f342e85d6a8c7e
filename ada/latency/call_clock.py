"""The clock of one call of ``generate``: what of a budget in time has gone by, and what the first token took."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

from ada.latency.latency_model import Elapsed, PrefillTiming
from llava.generation import TokenClock


@dataclass
class CallClock:
    """``started`` by ``time.perf_counter``; ``tokens``: the program's clock, which runs since the question was asked;
    ``plan_ms``: from the start until the plan was made."""

    started: float
    tokens: TokenClock | None
    plan_ms: float | None = None

    @classmethod
    def start(cls, stopping_criteria: Iterable[Any] | None) -> CallClock:
        """Now. The program's clock is among what may stop the generation."""
        started = time.perf_counter()
        return cls(started, next((one for one in stopping_criteria or () if isinstance(one, TokenClock)), None))

    @property
    def gone(self) -> Elapsed:
        """Until the start, reading words and pictures; and until the plan, once that is due."""
        return Elapsed(0.0 if self.tokens is None else 1000 * (self.started - self.tokens.start), self.plan_ms)

    def plan_is_due(self, hidden: torch.Tensor) -> None:
        """``hidden`` (B, T, D) is what the plan is made in front of."""
        hidden[0, 0, 0].item()  # a GPU has only been told so far: wait until it has come here
        self.plan_ms = 1000 * (time.perf_counter() - self.started)

    def times(self) -> PrefillTiming | None:
        """What the call took; None where there was no plan to make, or nobody noted when the first token came."""
        if self.plan_ms is None or self.tokens is None or not self.tokens.stamps:
            return None
        return PrefillTiming(self.plan_ms, 1000 * (self.tokens.stamps[0] - self.started))
