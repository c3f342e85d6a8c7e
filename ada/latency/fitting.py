"""Fits a latency model to measured workloads, and says how far their times scatter around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ada.latency.device_profile import TARGET_QUANTILE
from ada.latency.latency_model import LatencyModel, PrefillTiming, Workload, decode_terms, fit, plan_terms, rest_terms
from ada.latency.step_timer import MeasuredStep
from ada.latency.ttft_predictor import is_remainder_significant, rest_ratio
from ada.scheduling.units import Units


@dataclass(frozen=True)
class MeasuredWorkload:
    """A workload, the prefill of each of its runs, and the fastest decode step in milliseconds; start_ms: what the
    first steps took more; mean_token_ms: of each run.

    The fastest run is what the device can do; what slowed the others is part of the profile's spread.
    """

    workload: Workload
    runs: tuple[PrefillTiming, ...]
    inter_token_ms: float
    start_ms: float = 0.0
    mean_token_ms: tuple[float, ...] = ()

    @property
    def fastest(self) -> PrefillTiming:
        """The run with the lowest TTFT."""
        return min(self.runs, key=lambda run: run.ttft_ms)


def fit_latency_model(
    measured: Sequence[MeasuredWorkload], units: Units, steps: Sequence[MeasuredStep] = ()
) -> LatencyModel:
    """Fit the coefficients to the fastest run of each workload; ``steps``: decode steps of several rows."""
    workloads, fastest = [one.workload for one in measured], [one.fastest for one in measured]
    decoded = [decode_terms(workload, units) for workload in workloads]
    decoded += [decode_terms(one.workload, units, in_loop=False) for one in steps]
    step_ms = [*(one.inter_token_ms for one in measured), *(one.step_ms for one in steps)]
    return LatencyModel(
        plan=fit([plan_terms(w) for w in workloads], [run.to_plan_ms for run in fastest]),
        rest=fit([rest_terms(w, units) for w in workloads], [run.ttft_ms - run.to_plan_ms for run in fastest]),
        decode=fit(decoded, step_ms),
    )


def spreads(fitted: LatencyModel, measured: Sequence[MeasuredWorkload], units: Units) -> tuple[float, float]:
    """Return what ``TARGET_QUANTILE`` of all runs' measured over expected times are below.

    The first is of the whole TTFT, the second of the time after the plan, at the pace of the time up to it.
    """
    runs = [(fitted.prefill(one.workload, units), run) for one in measured for run in one.runs]
    ratios = [run.ttft_ms / expected.ttft_ms for expected, run in runs]
    rest_ratios = [rest_ratio(expected, run) for expected, run in runs if is_remainder_significant(expected)]
    return _high_quantile(ratios), _high_quantile(rest_ratios or ratios)


def token_spread(fitted: LatencyModel, measured: Sequence[MeasuredWorkload], units: Units, started_ms: float) -> float:
    """Return what ``TARGET_QUANTILE`` of all runs' mean inter-token latencies over the expected are below.

    started_ms: what slower first steps add to the mean.
    """
    expected = [fitted.inter_token_ms(one.workload, units) + started_ms for one in measured]
    ratios = [mean / ms for one, ms in zip(measured, expected, strict=True) for mean in one.mean_token_ms]
    return _high_quantile([ratio for ratio in ratios if ratio] or [1.0])


def _high_quantile(ratios: Sequence[float]) -> float:
    return float(np.percentile(ratios, 100 * TARGET_QUANTILE))


def errors(fitted: LatencyModel, held_out: Sequence[MeasuredWorkload], units: Units) -> dict[str, dict[str, float]]:
    """Return the relative errors by phase on workloads that were not fitted."""
    prefill = [one.fastest.ttft_ms / fitted.prefill(one.workload, units).ttft_ms for one in held_out]
    decode = [one.inter_token_ms / fitted.inter_token_ms(one.workload, units) for one in held_out]
    return {"prefill": relative_errors(prefill), "decode": relative_errors(decode)}


def relative_errors(ratios: Sequence[float]) -> dict[str, float]:
    """Return ``median`` and ``p95`` of how far measured over predicted times are from 1."""
    median, p95 = np.percentile(np.abs(np.asarray(ratios) - 1), (50, 95))
    return {"median": float(median), "p95": float(p95)}
