"""Marks and intervals, against published and obvious values."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ada.eval.accuracy import Accuracy, Difference, best_constants, is_right, tally, together
from ada.eval.question_file import Question


def question(kind: str, answer: str, number: int = 0) -> Question:
    return Question(number, "a.png", "text", kind, answer)


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    [  # the worked examples of Newcombe, Statistics in Medicine 17 (1998), table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_intervals_are_the_published_ones(correct, total, low, high):
    assert Accuracy(correct, total).interval == pytest.approx((low, high), abs=6e-5)


@settings(deadline=None)
@given(st.integers(1, 5000), st.floats(0, 1))
def test_intervals_hold_the_share_and_mirror(total, part):
    accuracy = Accuracy(round(part * total), total)
    low, high = accuracy.interval
    assert 0 <= low <= accuracy.share <= high <= 1 and low < high
    mirrored = Accuracy(total - accuracy.correct, total).interval
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-12)


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=60))
def test_differences_are_the_mean_of_the_pairs(pairs):
    scores = [int(a) - int(b) for a, b in pairs]
    difference = Difference.of([a for a, _ in pairs], [b for _, b in pairs])
    assert difference.share == pytest.approx(statistics.fmean(scores))
    assert difference.reach == pytest.approx(1.96 * statistics.pstdev(scores) / len(scores) ** 0.5, rel=1e-4, abs=1e-9)


@pytest.mark.parametrize(("given_", "right"), [("Yes", True), (" yes. ", True), ("yes .", True), ("yesx", False)])
def test_dress_does_not_matter(given_, right):
    assert is_right(given_, "yes") is right
    assert is_right("Red circles.", "red circles")


def test_the_best_constant_is_the_most_frequent_answer_of_its_kind():
    answers = {"colour": ["red", "Red", "blue", "red."], "count": ["0", "1", "1"], "one": ["B"]}
    questions = [question(kind, answer) for kind, given_ in answers.items() for answer in given_]
    assert best_constants(questions) == {
        "colour": ("red", Accuracy(3, 4)),
        "count": ("1", Accuracy(2, 3)),
        "one": ("B", Accuracy(1, 1)),
    }


def test_no_other_constant_is_better():
    questions = [question("ab"[n % 2], str(n * n % 7), n) for n in range(50)]
    for kind, (_, best) in best_constants(questions).items():
        own = [q.answer for q in questions if q.category == kind]
        assert best == Accuracy(max(sum(a == b for b in own) for a in own), len(own))


def test_tally():
    questions = [question(kind, "x", n) for n, kind in enumerate("abab")]
    kinds = tally(questions, [True, False, True, True])
    assert kinds == {"a": Accuracy(2, 2), "b": Accuracy(1, 2)}
    assert together(kinds) == Accuracy(3, 4)
