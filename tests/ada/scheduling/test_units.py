"""The unit grid: never over the budget, and never a unit less than it allows."""

import json
import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ada.budget import LatencyBudget
from ada.scheduling.units import Units
from llava.errors import OptionError

GRIDS = [
    Units("L", 32, 16, 32, 8),
    Units("H", 32, 16, 32, 8),
    Units("L", 40, 20, 40, 8),
    Units("H", 40, 20, 40, 8),
]


@pytest.mark.parametrize("grid", GRIDS, ids=lambda g: f"{g.kind}-{g.num_layers}")
def test_every_thousandth_is_within_budget_and_tight(grid: Units) -> None:
    for thousandth in range(1, 1001):
        budget = thousandth / 1000
        units = grid.prefix + grid.granted(budget)
        if budget < grid.fraction(0):
            assert units == grid.prefix
        else:
            assert Fraction(units, grid.total) <= Fraction(thousandth, 1000)
            # One more would be over, in the float64 product that the published tables are made with.
            assert units == grid.total or units + 1 > grid.total * budget


@pytest.mark.parametrize("grid", GRIDS, ids=lambda g: f"{g.kind}-{g.num_layers}")
def test_a_fraction_gives_its_units(grid: Units) -> None:
    assert [grid.tunable_of(grid.fraction(n)) for n in range(grid.tunable + 1)] == [*range(grid.tunable + 1)]


def test_grids_of_the_paper() -> None:
    assert [(g.total, g.tunable) for g in GRIDS] == [(32, 16), (128, 64), (40, 20), (200, 100)]


@given(st.integers(1, 48), st.integers(1, 48), st.sampled_from([1, 2, 4, 8]), st.floats(0.001, 1.0))
def test_any_grid_keeps_the_budget(layers: int, prefix: int, rank: int, budget: float) -> None:
    grid = Units("H", layers, min(prefix, layers), 8, rank)
    granted = grid.granted(budget)
    assert 0 <= granted <= grid.tunable
    assert granted == 0 or grid.prefix + granted <= grid.total * budget
    assert 0 <= grid.encoding(torch.tensor(granted)) < 1
    assert grid.granted(1.0) == grid.tunable


def test_agrees_with_the_recorded_tables(golden) -> None:
    data = json.loads((golden / "ada" / "quantization.json").read_text())
    for table in data["tables"]:
        total, prefix = table["total_units"], table["prefix_units"]
        grid = Units("L", total, prefix, 1, 1)  # a grid of single units has the same arithmetic
        assert [grid.granted(b) for b in table["latency"]] == table["units_float64"], table["name"]


@pytest.mark.parametrize(
    ("kind", "layers", "prefix", "switches", "rank", "named"),
    [("X", 4, 2, 4, 2, "'X'"), ("H", 4, 0, 4, 2, "0"), ("H", 4, 5, 4, 2, "5"), ("H", 4, 2, 4, 3, "3")],
)
def test_impossible_grids_are_refused(kind, layers, prefix, switches, rank, named) -> None:
    with pytest.raises(OptionError, match=named):
        Units(kind, layers, prefix, switches, rank)


@pytest.mark.parametrize(("text", "fraction"), [("0.5", 0.5), ("50%", 0.5), (" 100 % ", 1.0), (0.85, 0.85), (1, 1.0)])
def test_budgets_that_can_be_read(text, fraction) -> None:
    assert LatencyBudget.parse(text).fraction == fraction


@pytest.mark.parametrize("text", ["0", "1.5", "nan", "fast", "-0.1", "inf", "", "%", "101%", "0%", 0.0, math.nan, True])
def test_budgets_that_are_refused_name_flag_value_and_range(text) -> None:
    with pytest.raises(OptionError, match=r"--latency-budget is .*\(0, 1\]"):
        LatencyBudget.parse(text)


def test_a_time_is_no_share() -> None:
    with pytest.raises(OptionError, match=r"'850ms', a time; .*\(0, 1\]"):
        LatencyBudget.parse("850ms")
