"""Budget -> units: how much of the model a share, or a time on this device, grants."""

from __future__ import annotations

from ada.budget import LatencyBudget, TimeBudget
from ada.latency.latency_model import NO_TIME_ELAPSED, Elapsed, Workload
from ada.latency.ttft_predictor import TTFTPredictor
from ada.scheduling.units import Units
from llava.errors import OptionError


def granted_units(
    units: Units,
    latency: TTFTPredictor | None,
    budget: LatencyBudget | TimeBudget,
    tokens: int,
    pictures: int,
    strict: bool = False,
    gone: Elapsed = NO_TIME_ELAPSED,
) -> int:
    """Tunable units under one budget: as many as fit, or none where not even the prefix does.

    tokens: positions of the prompt, pictures' and the latency token's included; gone: what of the time has gone by.
    Raises OptionError for a time without a calibration, and, where ``strict``, for a budget that cannot be kept.
    """
    if isinstance(budget, LatencyBudget):
        if strict:
            refuse_unreachable(units, budget)
        return units.granted(budget.fraction)
    if latency is None:
        raise OptionError(
            f"--latency-budget is {budget}: a time needs a calibration of this device; run python -m ada.calibrate"
        )
    least = latency.first_token_ms(Workload(tokens, 0, pictures), gone)
    if strict and least > budget.milliseconds:
        raise OptionError(
            f"--latency-budget is {budget} and --strict-latency-budget is set, but this prompt takes {least:.4g} ms at "
            "the least here"
        )
    return latency.units_within(budget.milliseconds, tokens, pictures, gone)


def refuse_unreachable(units: Units, budget: LatencyBudget) -> None:
    """Raise ``OptionError`` where even the cheapest plan is over the budget, with the least reachable value."""
    if budget.fraction < units.fraction(0):
        least = -(-units.prefix * 10_000 // units.total) / 10_000  # rounded up: a value that is taken
        raise OptionError(
            f"--latency-budget is {budget} and --strict-latency-budget is set, but this model always runs "
            f"{units.num_prefix_layers} of its {units.num_layers} layers; the least reachable budget is {least:g}"
        )
