"""Answers match whatever their case, surrounding space and full stop."""

from __future__ import annotations

import pytest

from ada.eval.questions.exact_match import is_right


@pytest.mark.parametrize(
    ("answer", "expected", "right"),
    [
        ("Yes", "yes", True),
        (" yes. ", "yes", True),
        ("yes .", "yes", True),
        ("yesx", "yes", False),
        ("Red circles.", "red circles", True),
    ],
)
def test_is_right_ignores_case_space_and_full_stop(answer, expected, right):
    assert is_right(answer, expected) is right
