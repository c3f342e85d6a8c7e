"""Predicted accuracies: exact at points, monotone, averaged where noise has swapped points."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ada.frontier.defaults import TRAINED, UNTRAINED, default_frontier
from ada.frontier.table import Frontier, Point
from llava.errors import DataError

SHARES = (1 / 4, 1 / 2, 1.0)


def at(frontier, *setting):
    return float(frontier.predicted([setting])[0])


def grown(setting, axis, step):
    """A setting with one share larger, at most 1."""
    changed = list(setting)
    changed[axis] = min(1.0, changed[axis] + step)
    return tuple(changed)


shares = st.sampled_from(SHARES) | st.floats(0.01, 1)
points = st.builds(
    lambda tokens, units, accuracy: Point(max(tokens), min(tokens), units, accuracy),
    st.tuples(shares, shares),
    shares,
    st.floats(0, 1),
)
tables = st.lists(points, min_size=1, max_size=12).map(lambda drawn: Frontier(tuple(drawn), "drawn"))
asked = st.tuples(*[st.floats(0, 1)] * 3)


def grid(value):
    """All points of a grid, with the accuracy ``value(front, late, units)``."""
    tokens = [pair for pair in itertools.product(SHARES, SHARES) if pair[1] <= pair[0]]
    return [Point(*pair, units, value(*pair, units)) for pair in tokens for units in (0.5, 1.0)]


def test_predicted_is_exact_at_points_that_grow() -> None:
    measured = grid(lambda front, late, units: 0.3 * front + 0.2 * late**0.5 + 0.1 * units)
    frontier = Frontier(tuple(measured), "test")
    assert frontier.predicted(p.setting for p in measured) == pytest.approx([p.accuracy for p in measured], abs=1e-12)


@pytest.mark.parametrize("frontier", [TRAINED, UNTRAINED], ids=["trained", "untrained"])
def test_default_frontiers_grow_and_are_exact(frontier) -> None:
    expected = [point.accuracy for point in frontier.points]
    assert frontier.predicted(p.setting for p in frontier.points) == pytest.approx(expected, abs=0.0011)
    assert at(frontier, 1, 1, 1) == 1.0, "nothing else is predicted to be as accurate, so budget 1 keeps all tokens"
    others = [p.setting for p in frontier.points if p.units == 1 and p.setting != (1, 1, 1)]
    assert (frontier.predicted(others) < 0.9999).all()


@settings(max_examples=200, deadline=None)
@given(tables, asked, st.integers(0, 2), st.floats(0, 1))
def test_predicted_does_not_fall_with_more_tokens_or_units(frontier, setting, axis, step) -> None:
    assert at(frontier, *setting) <= at(frontier, *grown(setting, axis, step)) + 1e-12


@settings(max_examples=100, deadline=None)
@given(tables, asked)
def test_predicted_lies_within_what_was_measured_and_0(frontier, setting) -> None:
    assert 0 <= at(frontier, *setting) <= max(point.accuracy for point in frontier.points) + 1e-12


def test_predicted_of_swapped_points_is_between_them() -> None:
    frontier = Frontier((Point(1, 1, 1, 0.90), Point(0.5, 0.5, 1, 0.94)), "test")
    assert at(frontier, 1, 1, 1) == at(frontier, 0.5, 0.5, 1) == pytest.approx(0.92)


def test_predicted_between_points_is_linear_and_falls_to_0() -> None:
    frontier = Frontier((Point(1, 1, 1, 0.9), Point(1, 1, 0.5, 0.7)), "test")
    assert [at(frontier, 1, 1, units) for units in (0.75, 0.25, 0)] == pytest.approx([0.8, 0.35, 0])


def test_predicted_late_share_is_at_most_that_of_the_front() -> None:
    frontier = Frontier((Point(1, 1, 1, 0.9), Point(0.5, 0.5, 1, 0.8), Point(0.5, 0.25, 1, 0.6)), "test")
    assert at(frontier, 0.5, 1, 1) == at(frontier, 0.5, 0.5, 1) == pytest.approx(0.8)


@pytest.mark.parametrize(
    "values",
    [(0, 0, 1, 0.5), (0.5, 0.6, 1, 0.5), (1, 1, 0, 0.5), (1, 1, 1, 95), (1, 1, 1, float("nan")), ("1", 1, 1, 1)],
)
def test_point_out_of_range_is_refused(values) -> None:
    with pytest.raises(DataError, match="not a point of a frontier"):
        Point(*values)


def test_frontier_without_points_is_refused() -> None:
    with pytest.raises(DataError, match=r"python -m ada\.eval\.frontier"):
        Frontier((), "test")


def test_default_frontier_is_by_what_the_config_says_of_training() -> None:
    class Config:
        image_token_dropout = 0.1

    assert default_frontier(Config) is TRAINED and default_frontier(object()) is UNTRAINED
