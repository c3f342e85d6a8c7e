"""Thresholds: the promise holds by an exact interval, the threshold is the lowest, and it is kept on fresh answers."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from ada.quality.threshold import Validated, lowest_threshold, upper_bound

answers = st.lists(st.builds(Validated, st.integers(0, 20).map(float), st.booleans()), min_size=1, max_size=120)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 60), st.integers(60, 400))
def test_upper_bound_is_the_end_of_the_exact_interval(different, count):
    expected = binomtest(different, count, alternative="less").proportion_ci(0.95, method="exact").high
    assert upper_bound(different, count) == pytest.approx(expected, abs=1e-9)


@settings(max_examples=200, deadline=None)
@given(answers, st.floats(0.01, 0.6))
def test_threshold_is_the_lowest_that_keeps_the_promise(given_answers, promise):
    def kept(threshold):
        different = sum(one.differs for one in given_answers if one.margin >= threshold)
        return upper_bound(different, len(given_answers)) <= promise

    found = lowest_threshold(given_answers, promise)
    if found is None:
        assert not kept(math.inf)
        return
    assert kept(found)
    lower = [one.margin for one in given_answers if one.margin < found]
    assert not lower or not kept(max(lower))


def test_promise_is_kept_on_fresh_answers_in_95_of_100_trials():
    """Answers whose chance to differ falls with the margin: of 300 trials some 15 may break the promise of 5 %."""
    rng = random.Random(0)

    def draw(count):
        margins = [rng.expovariate(0.5) for _ in range(count)]
        return [Validated(margin, rng.random() < 0.5 * math.exp(-1.3 * margin)) for margin in margins]

    world = draw(200_000)
    broken = 0
    for _ in range(300):
        threshold = lowest_threshold(draw(600), 0.05)
        broken += sum(one.differs and one.margin >= threshold for one in world[:20_000]) / 20_000 > 0.05
    assert broken <= 25


def test_too_few_answers_make_no_promise():
    assert lowest_threshold([Validated(1.0, False)] * 20, 0.02) is None
    assert lowest_threshold([Validated(1.0, False)] * 200, 0.02) == 1.0
    assert lowest_threshold([Validated(1.0, True)] * 200, 0.02) == math.inf
