"""The benchmark of what need not be read twice: fewer operations, the same answers, a table and JSON."""

import json

import pytest

from ada.bench import reuse
from ada.bench.__main__ import main


def test_program_prints_a_table_and_json(capsys) -> None:
    assert main(["reuse", "--rounds", "1", "--turns", "3", "--budgets", "0.5"]) == 0
    shown = capsys.readouterr().out
    figures = json.loads(shown.strip().splitlines()[-1])
    cases = {row["case"]: row for row in figures["cases"]}
    assert [*cases] == ["second look", "another question", "chat of 3 turns"] and "7B shapes" in shown
    assert all(row["answers_equal"] and row["anew_ms"] > 0 and row["known_ms"] > 0 for row in cases.values())
    assert cases["another question"]["operations"] < 0.25 < cases["second look"]["operations"] < 1
    assert cases["chat of 3 turns"]["operations"] < 0.6, "the first turn is read as a whole"


def test_operations_of_another_question_are_those_of_its_positions_and_a_little_attention() -> None:
    """At 7B shapes nearly all operations are products of weights: a position costs the same wherever it is."""
    question, read = 26, 35 + 576 + 26
    share = reuse.operations_7b(question=question - 1)
    assert 0.8 * question / read < share < question / read, "the tower's operations are saved on top"


@pytest.mark.parametrize("flag", ["--rounds", "--turns"])
def test_numbers_below_one_are_refused(flag, capsys) -> None:
    assert main(["reuse", flag, "0"]) == 2
    assert "whole numbers from 1 up" in capsys.readouterr().err
