"""Intervals, differences and p-values, compared with published values and slow counts."""

from __future__ import annotations

import math
import statistics
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ada.eval.questions.question_set import Item
from ada.eval.stats.accuracy import Accuracy, Difference, best_constants, holm, pooled, tally
from llava.eval.answering.questions import Question


def question(kind: str, answer: str, number: int = 0) -> Item:
    return Item(Question(number, "text", "text"), kind, answer, lambda record: record["text"] == answer)


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    [  # the worked examples of Newcombe, Statistics in Medicine 17 (1998), table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_interval_is_the_published_one(correct, total, low, high):
    assert Accuracy(correct, total).interval == pytest.approx((low, high), abs=6e-5)


@settings(deadline=None)
@given(st.integers(1, 5000), st.floats(0, 1))
def test_interval_contains_the_share_and_mirrors(total, part):
    accuracy = Accuracy(round(part * total), total)
    low, high = accuracy.interval
    assert 0 <= low <= accuracy.share <= high <= 1 and low < high
    mirrored = Accuracy(total - accuracy.correct, total).interval
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-12)


@settings(deadline=None)
@given(st.integers(2, 2000), st.floats(0.01, 0.99))
def test_interval_ends_are_1_96_standard_deviations_from_the_share(total, part):
    """By definition of Wilson's interval: deviations of each end's own binomial distribution."""
    accuracy = Accuracy(max(1, min(total - 1, round(part * total))), total)
    for end in accuracy.interval:
        deviation = math.sqrt(end * (1 - end) / total)
        assert abs(accuracy.share - end) == pytest.approx(1.959964 * deviation, rel=1e-6)


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=60))
def test_difference_is_the_mean_of_the_pairs(pairs):
    scores = [int(a) - int(b) for a, b in pairs]
    difference = Difference.of([a for a, _ in pairs], [b for _, b in pairs])
    assert difference.share == pytest.approx(statistics.fmean(scores))
    assert difference.reach == pytest.approx(1.96 * statistics.pstdev(scores) / len(scores) ** 0.5, rel=1e-4, abs=1e-9)


def test_difference_counted_by_hand():
    one = [True, True, True, True, False, False, True]
    other = [True, False, False, False, True, False, False]
    difference = Difference.of(one, other)
    assert (difference.gains, difference.losses, difference.total) == (4, 1, 7)
    assert difference.share == pytest.approx(3 / 7)
    # of 32 ways to throw five coins, 6 show at most one tail
    assert difference.p_value == pytest.approx(2 * (1 + 5) / 32)
    assert Difference(0, 0, 9).p_value == 1 and Difference(3, 3, 9).p_value == 1


@settings(deadline=None)
@given(st.integers(0, 400), st.integers(0, 400))
def test_p_value_is_counted_in_throws_of_coins(gains, losses):
    """Slow and independent: of all ways to throw a coin a changed question, those with a tail as small, twice."""
    changed = gains + losses
    tail = sum(math.comb(changed, k) for k in range(min(gains, losses) + 1))
    expected = min(Fraction(1), Fraction(2 * tail, 2**changed))
    assert Difference(gains, losses, 1000).p_value == pytest.approx(float(expected), rel=1e-9, abs=1e-300)


def test_holm_adjusts_p_values_as_by_hand():
    """Holm's method by hand: 4 x 0.005, 3 x 0.01, then 2 x 0.03 and, as it may not fall again, 0.06 once more."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.7, 0.6]) == [1.0, 1.0] and holm([]) == []


def test_best_constants_are_the_most_frequent_answers():
    answers = {"colour": ["red", "Red", "blue", "red."], "count": ["0", "1", "1"], "one": ["B"]}
    questions = [question(kind, answer) for kind, given_ in answers.items() for answer in given_]
    assert best_constants(questions) == {
        "colour": ("red", Accuracy(3, 4)),
        "count": ("1", Accuracy(2, 3)),
        "one": ("B", Accuracy(1, 1)),
    }


def test_best_constants_beat_every_other_constant():
    questions = [question("ab"[n % 2], str(n * n % 7), n) for n in range(50)]
    for kind, (_, best) in best_constants(questions).items():
        own = [q.truth for q in questions if q.kind == kind]
        assert best == Accuracy(max(sum(a == b for b in own) for a in own), len(own))


def test_tally_counts_by_kind():
    questions = [question(kind, "x", n) for n, kind in enumerate("abab")]
    kinds = tally(questions, [True, False, True, True])
    assert kinds == {"a": Accuracy(2, 2), "b": Accuracy(1, 2)}
    assert pooled(kinds.values()) == Accuracy(3, 4)
