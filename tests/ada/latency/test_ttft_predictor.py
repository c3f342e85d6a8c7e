"""The TTFT predictor: the choice of units, and the corrections that follow a busy device."""

import dataclasses
import math
import random

import pytest
from fixtures.known_device import H7B, L7B, PROFILE, REST, expected
from hypothesis import given, settings
from hypothesis import strategies as st

from ada.budget import TimeBudget
from ada.latency.latency_model import Elapsed, PrefillTiming, Workload
from ada.latency.ttft_predictor import BOUNDS, WINDOW, TTFTPredictor

WORKLOAD = Workload(640, 20, 1)
TO_PLAN_MS, TTFT_MS = expected(WORKLOAD, H7B)
REST_MS = TTFT_MS - TO_PLAN_MS


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([H7B, L7B]),
    st.floats(1, 3000),
    st.integers(32, 2000),
    st.integers(0, 1),
    st.builds(Elapsed, st.floats(0, 300), st.none() | st.floats(1, 3000)),
)
def test_units_within_returns_the_maximum_that_fits(units, ms, num_tokens, num_images, elapsed) -> None:
    predictor = TTFTPredictor(PROFILE, units)

    def p95(n):
        return predictor.first_token_ms(Workload(num_tokens, n, num_images), elapsed)

    granted = predictor.units_within(TimeBudget(ms), Workload(num_tokens, 0, num_images), elapsed)
    assert granted == max((n for n in range(units.tunable + 1) if p95(n) <= ms), default=0)


@settings(max_examples=100, deadline=None)
@given(st.floats(0.2, 20), st.integers(0, 16), st.integers(32, 2000))
def test_first_token_ms_scales_the_rest_by_the_elapsed_time(slower, layers, num_tokens) -> None:
    predictor, workload = TTFTPredictor(PROFILE, L7B), Workload(num_tokens, layers, 1)
    to_plan_ms, ttft_ms = expected(workload, L7B)
    rest_ms = PROFILE.rest_spread * (ttft_ms - to_plan_ms)
    late = predictor.first_token_ms(workload, Elapsed(9, slower * to_plan_ms))
    assert late == pytest.approx(9 + slower * (to_plan_ms + rest_ms))


def test_first_token_ms_before_the_plan_scales_by_the_spread() -> None:
    predictor = TTFTPredictor(PROFILE, H7B)
    assert predictor.first_token_ms(WORKLOAD) == pytest.approx(PROFILE.spread * TTFT_MS)
    assert predictor.first_token_ms(WORKLOAD, Elapsed(9)) == pytest.approx(9 + PROFILE.spread * TTFT_MS)


class Device:
    """A device that answers ``WORKLOAD`` again and again, a little noisy, and corrects its predictor by each answer."""

    def __init__(self) -> None:
        self.predictor, self.rng = TTFTPredictor(PROFILE, H7B), random.Random(0)

    def answer(self, slower: float = 1.0, rest_slower: float = 1.0) -> tuple[bool, bool]:
        """Return whether the first token came by what was predicted before the call, and when the plan was made."""
        before = self.predictor.first_token_ms(WORKLOAD)
        to_plan_ms = slower * TO_PLAN_MS
        at_plan = self.predictor.first_token_ms(WORKLOAD, Elapsed(0, to_plan_ms))
        ttft_ms = to_plan_ms + REST_MS * slower * rest_slower * math.exp(self.rng.gauss(0, 0.05))
        self.predictor.observe(expected(WORKLOAD, H7B), PrefillTiming(to_plan_ms, ttft_ms))
        return ttft_ms <= before, ttft_ms <= at_plan

    def answers(self, count: int, slower: float = 1.0, rest_slower: float = 1.0) -> list[tuple[bool, ...]]:
        """Answer ``count`` times; return what was kept before the calls, and what when the plans were made."""
        return list(zip(*(self.answer(slower, rest_slower) for _ in range(count)), strict=True))


def test_predictions_of_a_quiet_device_are_kept_a_little_over_95_percent() -> None:
    for kept in Device().answers(2000):
        assert 0.94 < sum(kept) / len(kept) < 0.98


def test_a_slower_device_is_learnt_within_twenty_answers_and_seen_at_once() -> None:
    before, at_plan = Device().answers(100, slower=2.0)
    assert not any(before[:2]) and sum(before[20:]) >= 0.85 * 80
    assert sum(at_plan[:20]) >= 17, "by the time up to the plan, the first of them sees it"


def test_a_slow_spell_is_forgotten_after_a_window_of_answers() -> None:
    device = Device()
    device.answers(2 * WINDOW, slower=2.0)
    slow = device.predictor.factor
    kept, _ = device.answers(WINDOW - 2)
    device.answers(WINDOW)
    assert all(kept) and device.predictor.factor < 1.3 < slow


def test_a_slower_rest_alone_is_learnt() -> None:
    _, at_plan = Device().answers(200, rest_slower=1.5)
    assert not any(at_plan[:2]) and sum(at_plan[20:]) >= 0.9 * 180


@pytest.mark.parametrize(("slower", "bound"), [(1e-6, BOUNDS[0]), (1e6, BOUNDS[1])])
def test_factor_stays_within_bounds_of_the_spread(slower, bound) -> None:
    device = Device()
    device.answers(WINDOW, slower=slower)
    assert device.predictor.factor == pytest.approx(bound * PROFILE.spread)


@pytest.mark.parametrize(("slower", "bound"), [(1e-6, BOUNDS[0]), (1e6, BOUNDS[1])])
def test_rest_factor_stays_within_bounds_of_the_spread(slower, bound) -> None:
    device = Device()
    device.answers(WINDOW, rest_slower=slower)
    rest_ms = device.predictor.first_token_ms(WORKLOAD, Elapsed(0, TO_PLAN_MS)) - TO_PLAN_MS
    assert rest_ms == pytest.approx(bound * PROFILE.rest_spread * REST_MS)


def test_reset_forgets_what_was_observed() -> None:
    device = Device()
    device.answers(WINDOW, slower=3.0, rest_slower=2.0)
    device.predictor.reset()
    assert device.predictor.factor == PROFILE.spread
    late = device.predictor.first_token_ms(WORKLOAD, Elapsed(0, TO_PLAN_MS))
    assert late == pytest.approx(TO_PLAN_MS + PROFILE.rest_spread * REST_MS)


def test_fixed_predictor_ignores_elapsed_time_and_observations() -> None:
    fixed = TTFTPredictor(PROFILE, H7B).fixed()
    for _ in range(WINDOW):
        fixed.observe(PrefillTiming(TO_PLAN_MS, TTFT_MS), PrefillTiming(3 * TO_PLAN_MS, 5 * TTFT_MS))
    assert fixed.first_token_ms(WORKLOAD, Elapsed(9, 3 * TO_PLAN_MS)) == pytest.approx(PROFILE.spread * TTFT_MS)


def test_observe_with_a_short_remainder_corrects_the_whole_ttft_only() -> None:
    """Even where the fit expects no time at all after the plan, as of an answer without tunable units."""
    bare = dataclasses.replace(PROFILE, rest=[0.0, 0.0, *REST[2:]])
    predictor, no_units, all_units = TTFTPredictor(bare, L7B), Workload(640, 0, 1), Workload(640, 16, 1)
    before = predictor.first_token_ms(all_units, Elapsed(0, 300))
    for _ in range(WINDOW):
        predictor.observe(predictor.expected(no_units), PrefillTiming(300, 900))
    assert predictor.first_token_ms(all_units, Elapsed(0, 300)) == before
    assert predictor.factor > 2
