"""Thresholds: the promise holds by an exact interval, the threshold is the lowest, and it is kept on fresh answers."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ada.quality.threshold import Validated, likely_share, lowest_threshold

answers = st.lists(st.builds(Validated, st.integers(0, 20).map(float), st.booleans()), min_size=1, max_size=120)


@pytest.mark.parametrize(("different", "count"), [(0, 200), (1, 100), (6, 400), (30, 600), (100, 100)])
def test_likely_share_is_the_95th_percentile_of_drawn_futures(different, count):
    """A true share is drawn of Clopper and Pearson's posterior, then answers of that share."""
    draw = np.random.default_rng(different)
    true = draw.beta(different + 1, count - different, 200_000) if different < count else np.ones(10)
    futures = draw.binomial(count, true) / count
    assert likely_share(different, count) == pytest.approx(np.quantile(futures, 0.95), abs=0.6 / count)


@settings(max_examples=200, deadline=None)
@given(answers, st.floats(0.01, 0.6))
def test_threshold_is_the_lowest_that_keeps_the_promise(given_answers, promise):
    def kept(threshold):
        different = sum(one.differs for one in given_answers if one.margin >= threshold)
        return likely_share(different, len(given_answers)) <= promise

    found = lowest_threshold(given_answers, promise)
    if found is None:
        assert not kept(math.inf)
        return
    assert kept(found)
    lower = [one.margin for one in given_answers if one.margin < found]
    assert not lower or not kept(max(lower))


def test_promise_is_kept_among_as_many_fresh_answers_in_95_of_100_trials():
    """Answers whose chance to differ falls with the margin: of 300 trials some 15 may break the promise of 5 %."""
    rng = random.Random(0)

    def draw(count):
        margins = [rng.expovariate(0.5) for _ in range(count)]
        return [Validated(margin, rng.random() < 0.5 * math.exp(-1.3 * margin)) for margin in margins]

    broken = 0
    for _ in range(300):
        threshold = lowest_threshold(draw(600), 0.05)
        broken += sum(one.differs and one.margin >= threshold for one in draw(600)) / 600 > 0.05
    assert 3 <= broken <= 25


def test_too_few_answers_make_no_promise():
    assert lowest_threshold([Validated(1.0, False)] * 20, 0.02) is None
    assert lowest_threshold([Validated(1.0, False)] * 200, 0.02) == 1.0
    assert lowest_threshold([Validated(1.0, True)] * 200, 0.02) == math.inf
