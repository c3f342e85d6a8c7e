"""Budgets as text: fractions, percentages and times."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from ada.budget import LatencyBudget, TimeBudget, budgets_of_rows, read_budget
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


WIDE = [torch.float32, torch.float64]
SHARES = [step / 20 for step in range(1, 21)]


@pytest.mark.parametrize("dtype", WIDE, ids=str)
def test_tensor_of_budgets_is_the_decimals_that_it_was_made_from(dtype) -> None:
    expected = [LatencyBudget(share) for share in SHARES]
    assert budgets_of_rows(torch.tensor(SHARES, dtype=dtype), len(SHARES)) == expected
    assert budgets_of_rows(torch.tensor(0.7, dtype=dtype), 2) == [LatencyBudget(0.7)] * 2


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_numpys_budgets_are_the_decimals_that_they_were_made_from(dtype) -> None:
    expected, array = [LatencyBudget(share) for share in SHARES], np.array(SHARES, dtype=dtype)
    assert budgets_of_rows(array, len(SHARES)) == budgets_of_rows(list(array), len(SHARES)) == expected
    assert budgets_of_rows(array[13], 1) == budgets_of_rows(array[13:14].reshape(()), 1) == [LatencyBudget(0.7)]
    assert read_budget({"ttft": dtype(0.3)}) == TimeBudget(0.3)


def test_budget_of_single_precision_is_one_that_rounds_to_it() -> None:
    drawn = torch.rand(200, generator=torch.Generator().manual_seed(0)).clamp(0.01)
    found = [budget.fraction for budget in budgets_of_rows(drawn, 200)]
    assert torch.equal(torch.tensor(found), drawn) and all(len(str(value)) <= 12 for value in found)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_budget_of_half_precision_is_what_it_holds(dtype) -> None:
    """A decimal near it may be above it, and a budget is a limit."""
    drawn = torch.rand(200, generator=torch.Generator().manual_seed(0)).clamp(0.01).to(dtype)
    assert [budget.fraction for budget in budgets_of_rows(drawn, 200)] == drawn.tolist()


def test_other_numbers_of_budgets_stay_as_they_are() -> None:
    assert budgets_of_rows(torch.tensor([1, 1]), 2) == [LatencyBudget(1.0)] * 2
    assert budgets_of_rows(np.array([None, "50%", 0.1], dtype=object), 3) == [
        None,
        LatencyBudget(0.5),
        LatencyBudget(0.1),
    ]
    assert read_budget(Fraction(1, 3)) == LatencyBudget(1 / 3)
    third = 0.1 + 0.2  # 0.30000000000000004, which needs 17 digits
    assert budgets_of_rows(torch.tensor([third], dtype=torch.float64), 1) == [LatencyBudget(third)]
    for wrong in (torch.tensor([True]), torch.tensor([[0.5]]), np.array([np.nan])):
        with pytest.raises(OptionError, match="--latency-budget is"):
            budgets_of_rows(wrong, 1)
