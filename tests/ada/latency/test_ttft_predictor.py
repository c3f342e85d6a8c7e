"""The TTFT predictor: the choice of units, and the corrections that follow a busy device."""

import dataclasses
import math
import random

import pytest
from fixtures.known_device import H7B, L7B, PROFILE, REST, expected
from hypothesis import given, settings
from hypothesis import strategies as st

from ada.latency.latency_model import Elapsed, PrefillTiming, Workload
from ada.latency.ttft_predictor import BOUNDS, WINDOW, TTFTPredictor


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([H7B, L7B]),
    st.floats(1, 3000),
    st.integers(32, 2000),
    st.integers(0, 1),
    st.builds(Elapsed, st.floats(0, 300), st.none() | st.floats(1, 3000)),
)
def test_units_within_returns_the_maximum_that_fits(units, ms, tokens, pictures, gone) -> None:
    latency = TTFTPredictor(PROFILE, units)

    def p95(n):
        return latency.first_token_ms(Workload(tokens, n, pictures), gone)

    granted = latency.units_within(ms, tokens, pictures, gone)
    assert granted == max((n for n in range(units.tunable + 1) if p95(n) <= ms), default=0)


@settings(max_examples=100, deadline=None)
@given(st.floats(0.2, 20), st.integers(0, 16), st.integers(32, 2000))
def test_first_token_ms_scales_the_rest_by_the_elapsed_time(slower, layers, tokens) -> None:
    latency, point = TTFTPredictor(PROFILE, L7B), Workload(tokens, layers, 1)
    plan, first = expected(point, L7B)
    rest = PROFILE.rest_spread * (first - plan)
    assert latency.first_token_ms(point, Elapsed(9, slower * plan)) == pytest.approx(9 + slower * (plan + rest))
    assert latency.first_token_ms(point, Elapsed(9)) == pytest.approx(9 + PROFILE.spread * first)
    assert latency.first_token_ms(point) == pytest.approx(PROFILE.spread * first), "and before the call, earlier ones"


def test_corrections_follow_the_device_within_bounds() -> None:
    latency, chance = TTFTPredictor(PROFILE, H7B), random.Random(0)
    point = Workload(640, 20, 1)
    plan, first = expected(point, H7B)

    def answer(slower: float, behind: float = 1.0) -> tuple[bool, bool]:
        """Whether the first token came by what was predicted before the call, and as the plan was made."""
        before = latency.first_token_ms(point)
        gone = plan * slower
        then = latency.first_token_ms(point, Elapsed(0, gone))
        measured = gone + (first - plan) * slower * behind * math.exp(chance.gauss(0, 0.05))
        latency.observe(expected(point, H7B), PrefillTiming(gone, measured))
        return measured <= before, measured <= then

    for kept in zip(*(answer(1.0) for _ in range(2000)), strict=True):
        assert 0.94 < sum(kept) / len(kept) < 0.98, "a little over 95 % are below the predicted p95"
    before, then = zip(*(answer(2.0) for _ in range(2000)), strict=True)
    assert not any(before[:2]) and sum(before[20:100]) >= 0.85 * 80, "a busy device is learnt within twenty answers"
    assert sum(then[:20]) >= 17, "but the first of them sees it"
    kept, factors = zip(*((answer(1.0)[0], latency.factor) for _ in range(2 * WINDOW)), strict=True)
    assert all(kept[: WINDOW - 2]) and factors[-1] < 1.3 < factors[0], "what the busy spell taught is forgotten"
    then = [answer(1.0, behind=1.5)[1] for _ in range(200)]
    assert not any(then[:2]) and sum(then[20:]) >= 0.9 * 180, "what slows the rest alone is learnt as well"
    for slower, behind, bound in ((1e6, 1.0, BOUNDS[1]), (1e-6, 1.0, BOUNDS[0]), (1.0, 1e6, None), (1.0, 1e-6, None)):
        for _ in range(WINDOW):
            answer(slower, behind)
        if bound is not None:
            assert latency.factor == pytest.approx(bound * PROFILE.spread)
        else:
            bound = BOUNDS[behind > 1]
            rest = latency.first_token_ms(point, Elapsed(0, plan)) - plan
            assert rest == pytest.approx(bound * PROFILE.rest_spread * (first - plan))
    latency.reset()
    assert latency.factor == PROFILE.spread
    assert latency.first_token_ms(point, Elapsed(0, plan)) == pytest.approx(plan + PROFILE.rest_spread * (first - plan))


def test_fixed_predictor_ignores_elapsed_time_and_observations() -> None:
    fixed, point = TTFTPredictor(PROFILE, H7B).fixed(), Workload(640, 20, 1)
    plan, first = expected(point, H7B)
    for _ in range(WINDOW):
        fixed.observe(PrefillTiming(plan, first), PrefillTiming(3 * plan, 5 * first))
    assert fixed.first_token_ms(point, Elapsed(9, 3 * plan)) == pytest.approx(PROFILE.spread * first)


def test_observe_with_a_short_remainder_corrects_the_whole_ttft_only() -> None:
    """Even where the fit expects nothing at all there: an answer without tunable units ends well."""
    bare = dataclasses.replace(PROFILE, rest=[0.0, 0.0, *REST[2:]])
    latency, point = TTFTPredictor(bare, L7B), Workload(640, 0, 1)
    most = Workload(640, 16, 1)
    before = latency.first_token_ms(most, Elapsed(0, 300))
    for _ in range(WINDOW):
        latency.observe(latency.expected(point), PrefillTiming(300, 900))
    assert latency.first_token_ms(most, Elapsed(0, 300)) == before
    assert latency.factor > 2, "the whole time teaches its factor"
