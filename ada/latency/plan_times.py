"""Predicts a prompt's times under plans from all units down to none: what a device could give within a promise."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ada.latency.latency_model import Workload
    from ada.latency.ttft_predictor import TTFTPredictor

STEPS = 8  # from all units to none


class PlanTimes(NamedTuple):
    """One plan: its share of the model's units, and predicted milliseconds: p95 to the first token, mean of others."""

    share: float
    ttft_ms: float
    token_ms: float


def plan_times(predictor: TTFTPredictor, prompt: Workload, rows: int, later_tokens: int) -> list[PlanTimes]:
    """Predict a prompt, whose units do not count, under plans from all units down to none.

    rows: that decode together; later_tokens: of each answer.
    """
    units, context = predictor.units, rows * (prompt.num_tokens + later_tokens // 2)
    step = replace(prompt, num_tokens=context, rows=rows, late_tokens=None)
    counts = {round(units.tunable * part / STEPS) for part in range(STEPS + 1)}
    return [
        PlanTimes(
            units.fraction(count),
            predictor.first_token_ms(replace(prompt, num_units=count)),
            predictor.later_ms(replace(step, num_units=count), later_tokens),
        )
        for count in sorted(counts, reverse=True)
    ]
