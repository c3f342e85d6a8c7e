"""Measures one call of ``generate`` against its time budget: what has elapsed, and what the first token took."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from ada.latency.latency_model import Elapsed, PrefillTiming, Workload
from ada.latency.ttft_predictor import TTFTPredictor
from llava.token_clock import TokenClock


@dataclass
class CallClock:
    """One call's view of the program's clock, ``tokens``.

    to_plan_ms: from the call's start until its plan was made.
    """

    tokens: TokenClock
    to_plan_ms: float | None = None

    @property
    def started(self) -> float:
        """When the call began, by ``time.perf_counter``."""
        return self.tokens.start if self.tokens.called is None else self.tokens.called

    @property
    def elapsed(self) -> Elapsed:
        """Milliseconds from the question to the call, and from there to the plan, once that was made."""
        return Elapsed(1000 * (self.started - self.tokens.start), self.to_plan_ms)

    def plan_is_due(self, computed: torch.Tensor) -> None:
        """Note the time at which the plan can be made: now that what it is made of, or after, is ``computed``.

        That is the scheduler's scores, which the host has read; without a scheduler the states that enter layer P, for
        which a GPU's kernels were only launched so far.
        """
        computed[(0,) * computed.dim()].item()
        self.to_plan_ms = 1000 * (time.perf_counter() - self.started)

    def prefill_timing(self) -> PrefillTiming | None:
        """Return what the prefill took; None where there was no plan to make, or no token came."""
        if self.to_plan_ms is None or not self.tokens.stamps:
            return None
        return PrefillTiming(self.to_plan_ms, 1000 * (self.tokens.stamps[0] - self.started))

    def correct(self, predictor: TTFTPredictor, ran: Workload) -> None:
        """Let ``predictor`` learn from what ``ran`` took."""
        measured = self.prefill_timing()
        if measured is not None:
            predictor.observe(predictor.expected(ran), measured)
