"""What a device could give under every plan is what its predictor says of each alone."""

from __future__ import annotations

import statistics
from dataclasses import replace

import pytest
from fixtures.known_device import H7B, KNOWN, L7B, PROFILE

from ada.latency.latency_model import PrefillTiming, Workload
from ada.latency.plan_times import STEPS, plan_times
from ada.latency.ttft_predictor import TTFTPredictor


@pytest.mark.parametrize("units", [H7B, L7B], ids=["H", "L"])
@pytest.mark.parametrize("rows", [1, 4])
def test_times_are_the_predictors_for_each_plan(units, rows) -> None:
    predictor = TTFTPredictor(replace(PROFILE, start_ms=33.0), units)
    prompt, later = Workload(200, 0, 1), 11
    found = plan_times(predictor, prompt, rows, later)
    assert [plan.share for plan in found] == sorted((plan.share for plan in found), reverse=True)
    assert (found[0].share, found[-1].share) == (1.0, units.fraction(0)) and len(found) == STEPS + 1
    for plan in found:
        count = round(plan.share * units.total) - units.prefix
        assert plan.ttft_ms == pytest.approx(predictor.first_token_ms(replace(prompt, num_units=count)))
        step = Workload(rows * (200 + later // 2), count, 1, rows=rows)
        step_ms = KNOWN.inter_token_ms(step, units) + 3.0  # 33 ms over 11 tokens
        assert plan.token_ms == pytest.approx(predictor.token_factor * step_ms)


@pytest.mark.parametrize(("units", "granted", "cut_ms"), [(H7B, 64, 0), (H7B, 32, 30 * 32 / 128), (L7B, 8, 0)])
def test_change_of_plan_cuts_layers_and_starts_again(units, granted, cut_ms) -> None:
    predictor = TTFTPredictor(replace(PROFILE, start_ms=33.0), units)
    assert predictor.change_ms(granted) == pytest.approx(cut_ms + 33)


def test_typical_factor_is_the_median_of_measured_over_expected() -> None:
    predictor = TTFTPredictor(PROFILE, H7B)
    workload, ratios = Workload(200, 100, 0), [0.5, 2.0, 1.25, 3.0, 1.5]
    expected = predictor.expected(workload)
    assert predictor.typical_factor == 1
    for count, ratio in enumerate(ratios, 1):
        predictor.observe(expected, PrefillTiming(*(ratio * ms for ms in expected)))
        assert predictor.typical_factor == pytest.approx(statistics.median(ratios[:count]))
    for _ in range(60):
        predictor.observe(expected, PrefillTiming(*(0.75 * ms for ms in expected)))
    assert predictor.typical_factor == pytest.approx(0.75), "the last 50"
