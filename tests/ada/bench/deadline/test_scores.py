"""Scores at a deadline: against counting by hand, and what must hold for any outcomes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ada.bench.deadline.client import Outcome
from ada.bench.deadline.scores import Curve, Point, point, span_of

outcomes = st.lists(
    st.builds(
        Outcome,
        total_s=st.floats(0, 10),
        right=st.booleans(),
        failure=st.sampled_from([None, "no"]),
        status=st.sampled_from([0, 200, 429, 503]),
    ),
    min_size=1,
    max_size=20,
)


def test_point_counts_what_is_late_or_failed_as_wrong() -> None:
    found = [
        Outcome(0.1, True),
        Outcome(0.1, False),
        Outcome(0.3, True),  # late
        Outcome(0.1, True, "queue full", 429),
        Outcome(0.1, True, "ReadError", 0),
        Outcome(0.1, True, "engine failed", 500),
        Outcome(0.1, True, "no worker", 503),
        Outcome(0.1, True, "gateway", 502),
    ]
    assert point(found, 200.0, 10.0) == Point(200.0, 8, 1 / 8, 2 / 8, 2 / 8, 3 / 8, 0.1)


def test_goodput_is_of_the_time_from_the_first_request_to_the_last_answer() -> None:
    """A server that answers two a second of four a second that are asked has a goodput of two."""
    times = [1 + number / 4 for number in range(400)]
    found = [Outcome((number + 1) / 2 - number / 4, True) for number in range(400)]
    assert span_of(times, found) == pytest.approx(200)
    assert point(found, 1e9, span_of(times, found)).goodput == pytest.approx(2)


@given(outcomes)
def test_point_rises_with_the_deadline_up_to_all_right_answers(outcomes) -> None:
    points = [point(outcomes, deadline, 1.0) for deadline in (1.0, 100.0, 3000.0, 20000.0)]
    assert [one.accuracy for one in points] == sorted(one.accuracy for one in points)
    answered = [one for one in outcomes if one.failure is None]
    assert points[-1].accuracy * len(outcomes) == pytest.approx(sum(one.right for one in answered))
    assert points[-1].in_time + points[-1].refused + points[-1].lost == pytest.approx(1)
    assert all(one.accuracy <= one.in_time for one in points)


@given(st.floats(0, 1), st.lists(st.floats(1, 1e4), min_size=1, max_size=6, unique_by=lambda ms: round(ms, 3)))
def test_area_of_a_level_curve_is_its_height(height, deadlines) -> None:
    points = [Point(ms, 1, height, height, 0, 0, 0) for ms in sorted(deadlines)]
    assert Curve("one", 1.0, points).area == pytest.approx(height)


def test_area_weighs_twice_the_time_the_same_anywhere() -> None:
    rising = [Point(ms, 1, accuracy, 1, 0, 0, 0) for ms, accuracy in ((10, 0.0), (20, 0.0), (40, 1.0), (80, 1.0))]
    assert Curve("one", 1.0, rising).area == pytest.approx(0.5)
