"""Falls in quality are found at the first budget that has one, and only where they are large and certain."""

from __future__ import annotations

import pytest

from ada.eval.stats.falloff import falls


def test_falls_name_the_questions_and_the_budget(example_rows):
    found = falls(example_rows)
    assert [(fall.title, fall.row.run.budget.fraction) for fall in found] == [("second", 0.5), ("test set", 0.5)]
    assert found[1].sentence == "tiny, learned, from budget 0.5 down, test set: 100.0 % to 50.0 % (-50.0 ± 15.5)"


@pytest.mark.parametrize(
    ("total", "wrong", "number"),
    [
        pytest.param(12, 4, 0, id="four of twelve may be chance: p is 2 / 16"),
        pytest.param(1000, 48, 0, id="4.8 points are too few"),
        pytest.param(1000, 50, 3, id="5 points, of all and of both kinds"),
    ],
)
def test_falls_are_large_and_certain(rows_of, total, wrong, number):
    smaller = "0" * wrong + "1" * (total - wrong)
    rows = rows_of({("learned", 1.0): {"test": "1" * total}, ("learned", 0.5): {"test": smaller}}, timed=False)
    assert len(falls(rows)) == number


def test_falls_name_the_first_budget_that_has_fallen(rows_of):
    many = "1" * 100
    rights = {1.0: many, 0.9: "0" + many[1:], 0.8: "0" * 30 + many[30:], 0.7: "0" * 60 + many[60:]}
    found = falls(rows_of({("learned", budget): {"test": marks} for budget, marks in rights.items()}))
    assert {fall.row.run.budget.fraction for fall in found} == {0.8} and len(found) == 3
