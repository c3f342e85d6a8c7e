"""Budgets as text: fractions, percentages and times."""

import pytest

from ada.budget import LatencyBudget, TimeBudget, read_budget
from llava.errors import OptionError


@pytest.mark.parametrize(
    ("text", "expected"),
    [("850ms", 850.0), ("1.2s", 1200.0), (" 12.5 ms ", 12.5), ("0.5", None), ("50%", None), (0.5, None)],
)
def test_read_budget_takes_fractions_percentages_and_times(text, expected) -> None:
    assert read_budget(text) == (LatencyBudget(0.5) if expected is None else TimeBudget(expected))
    assert read_budget(str(read_budget(text))) == read_budget(text), "it is written as it is read"


@pytest.mark.parametrize("text", ["0ms", "-5ms", "3 parsecs", "ms", "1.2.3s", "nanms", "", "fast", "1.5"])
def test_read_budget_refuses_other_text(text) -> None:
    with pytest.raises(OptionError, match=r"--latency-budget is .*850ms or 1\.2s"):
        read_budget(text)
