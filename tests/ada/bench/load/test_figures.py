"""The figures of a load test, by cases counted by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ada.bench.load.client import Result
from ada.bench.load.figures import differing, percentile, summary


@given(st.lists(st.floats(0, 100), min_size=1, max_size=40), st.sampled_from([0.5, 0.95, 1.0]))
def test_percentile_is_the_smallest_value_that_covers_the_share(values, share) -> None:
    found = percentile(values, share)
    assert found in values and sum(value <= found for value in values) >= share * len(values)
    smaller = [value for value in values if value < found]
    assert not smaller or sum(value <= max(smaller) for value in values) < share * len(values)


def test_percentile_of_no_values_is_none() -> None:
    assert percentile([], 0.5) is None


def test_summary_and_differing_agree_with_a_count_by_hand() -> None:
    results = [
        Result(0, 0.0, 200, 0.1, 1.0, "a", 4, 1.0),
        Result(1, 0.5, 200, 0.3, 1.5, "b", 6, 0.5),
        Result(2, 0.6, 429, failure="the queue is full"),
        Result(3, 0.7, 0, failure="ReadError: "),
        Result(4, 0.8, 200, 0.2, failure="the worker was lost"),
    ]
    got = summary(results)
    assert (got["requests"], got["answered"], got["refused"], got["lost"]) == (5, 2, 1, 2)
    assert got["first_token_s"] == {"p50": 0.1, "p95": 0.3} and got["total_s"] == {"p50": 1.0, "p95": 1.5}
    assert got["answers_per_second"] == pytest.approx(2 / 2.0) and got["tokens_per_second"] == pytest.approx(10 / 2.0)
    assert got["mean_budget_granted"] == 0.75
    assert summary(results[2:3])["answers_per_second"] is None
    other = [Result(result.index, 0.0, 200, 0.1, 1.0, "a", 4) for result in results]
    assert differing(results, other) == [{"request": 1, "alone": "a", "under_load": "b"}]
