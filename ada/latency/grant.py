"""Turns a budget into granted units: how much of the model a fraction, or a time on this device, pays for."""

from __future__ import annotations

from ada.budget import LatencyBudget, TimeBudget
from ada.latency.latency_model import NO_TIME_ELAPSED, Elapsed, Workload
from ada.latency.ttft_predictor import TTFTPredictor
from ada.scheduling.units import Units
from llava.errors import OptionError


def granted_units(
    units: Units,
    predictor: TTFTPredictor | None,
    budget: LatencyBudget | TimeBudget | None,
    num_tokens: int,
    num_images: int,
    strict: bool = False,
    elapsed: Elapsed = NO_TIME_ELAPSED,
) -> int:
    """Return the tunable units under one budget: as many as fit, 0 where not even the prefix does, all without one.

    num_tokens: positions of the prompt, image tokens and latency token included; num_images: that the vision tower
    sees; elapsed: what of a time budget has passed. Raises OptionError for a time without a calibration, and, where
    ``strict``, for a budget that even the cheapest plan exceeds.
    """
    if budget is None:
        return units.tunable
    if isinstance(budget, LatencyBudget):
        if strict:
            refuse_unreachable(units, budget)
        return units.granted(budget.fraction)
    if predictor is None:
        raise OptionError(
            f"--latency-budget is {budget}: a time needs a calibration of this device; run python -m ada.calibrate"
        )
    minimum = predictor.first_token_ms(Workload(num_tokens, 0, num_images), elapsed)
    if strict and minimum > budget.milliseconds:
        raise OptionError(
            f"--latency-budget is {budget} and --strict-latency-budget is set, but this prompt takes at least "
            f"{minimum:.4g} ms here"
        )
    return predictor.units_within(budget.milliseconds, num_tokens, num_images, elapsed)


def refuse_unreachable(units: Units, budget: LatencyBudget) -> None:
    """Raise OptionError, with the minimum reachable budget, where even the cheapest plan is over ``budget``."""
    if budget.fraction < units.fraction(0):
        minimum = -(-units.prefix * 10_000 // units.total) / 10_000  # rounded up: a value that is accepted
        raise OptionError(
            f"--latency-budget is {budget} and --strict-latency-budget is set, but this model always runs "
            f"{units.num_prefix_layers} of its {units.num_layers} layers; the minimum reachable budget is {minimum:g}"
        )
