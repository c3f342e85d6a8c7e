"""Turns a budget into granted units: how much of the model a fraction, or a time on this device, pays for."""

from __future__ import annotations

from collections.abc import Mapping

from ada.budget import LatencyBudget, TimeBudget
from ada.frontier.share import PrefillShare, PromptTokens
from ada.latency.latency_model import NO_TIME_ELAPSED, Elapsed, Workload
from ada.latency.ttft_predictor import TTFTPredictor
from llava.errors import OptionError


class OutOfReach(OptionError):
    """A strict time that even the cheapest plan exceeds. minimum: what that takes, in milliseconds by clause."""

    def __init__(self, budget: TimeBudget, minimum: Mapping[str, float]) -> None:
        rounded = {name: float(f"{ms:.4g}") for name, ms in minimum.items()}
        self.minimum = minimum
        self.shown = f"{rounded['ttft']:g} ms" if [*rounded] == ["ttft"] else str(TimeBudget.of(rounded))
        super().__init__(
            f"--latency-budget is {budget} and --strict-latency-budget is set, but this prompt takes at least "
            f"{self.shown} here"
        )


def granted_units(
    share: PrefillShare,
    predictor: TTFTPredictor | None,
    budget: LatencyBudget | TimeBudget | None,
    tokens: PromptTokens,
    num_images: int,
    strict: bool = False,
    elapsed: Elapsed = NO_TIME_ELAPSED,
) -> int:
    """Return the tunable units under one budget: as many as fit, 0 where not even the prefix does, all without one.

    tokens: positions of the prompt, latency token included; num_images: that the vision tower sees; elapsed: what of a
    time budget has passed. Raises OptionError for a time without a calibration, and, where ``strict``, for a budget
    that even the cheapest plan exceeds (OutOfReach for a time).
    """
    if budget is None:
        return share.units.tunable
    if isinstance(budget, LatencyBudget):
        if strict:
            refuse_unreachable(share, budget, tokens)
        return share.granted(budget.fraction, tokens)
    predictor = needed_predictor(predictor, budget)
    prompt = workload_of(share, tokens, num_images, share.min_units)
    if strict and not is_within(minimum := predictor.minimum(budget, prompt, elapsed), budget):
        raise OutOfReach(budget, minimum)
    return max(share.min_units, predictor.units_within(budget, prompt, elapsed))


def is_within(times: Mapping[str, float], budget: TimeBudget) -> bool:
    """Return whether times in milliseconds, by clause, keep all clauses of a budget."""
    return all(times[name] <= allowed for name, allowed in budget.clauses())


def workload_of(share: PrefillShare, tokens: PromptTokens, num_images: int, num_units: int = 0) -> Workload:
    """Return what a prompt's time is predicted for, under ``num_units`` tunable units."""
    late_from_prefix = share.first_late_layer <= share.units.num_prefix_layers
    return Workload.of(tokens, num_units, num_images, late_from_prefix)


def needed_predictor(predictor: TTFTPredictor | None, budget: TimeBudget) -> TTFTPredictor:
    """Return the predictor that a time needs. Raises OptionError where there is none."""
    if predictor is None:
        raise OptionError(
            f"--latency-budget is {budget}: a time needs a calibration of this device; run python -m ada.calibrate"
        )
    return predictor


def refuse_unreachable(share: PrefillShare, budget: LatencyBudget, tokens: PromptTokens) -> None:
    """Raise OptionError, with the minimum reachable budget, where even the cheapest plan is over ``budget``."""
    units = share.units
    if share.is_within(budget.fraction, tokens, share.min_units):
        return
    layers = units.num_layers if share.min_units else units.num_prefix_layers
    read = "" if tokens.late == tokens.full else f" on {tokens.front} of its {tokens.full} positions"
    raise OptionError(
        f"--latency-budget is {budget} and --strict-latency-budget is set, but this model always runs "
        f"{layers} of its {units.num_layers} layers{read}; the minimum reachable budget is "
        f"{share.minimum(tokens):g}"
    )
