"""Every budget, dtype and kind at the unit grids of 7B and 13B: no plan costs more, and no larger one would fit."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch

from ada.config import AdaLlavaConfig
from ada.model.modeling import AdaLlavaLlamaForCausalLM
from ada.scheduling.execution_plan import ExecutionPlan

THOUSANDTHS = range(1, 1001)
LAYERS_AND_HEADS = {"7B": (32, 32), "13B": (40, 40)}


@pytest.fixture(scope="module", params=[("H", "7B"), ("H", "13B"), ("L", "7B"), ("L", "13B")], ids="-".join)
def model(request) -> AdaLlavaLlamaForCausalLM:
    """The real number of layers, heads and ranks, with heads of two channels."""
    kind, size = request.param
    layers, heads = LAYERS_AND_HEADS[size]
    config = AdaLlavaConfig(
        vocab_size=16,
        hidden_size=2 * heads,
        intermediate_size=2 * heads + 3,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        scheduler_type=kind,
        scheduler_rank=8,
    )
    torch.manual_seed(0)
    return AdaLlavaLlamaForCausalLM(config).eval()


def units_of(plan: ExecutionPlan, kind: str, rank: int) -> int:
    """Units that a plan switches on; raises where it holds half a unit."""
    per_unit = {"H": rank, "L": plan.num_switches}[kind]
    counts = [(len(layer.heads), len(layer.neuron_groups)) for layer in plan.layers]
    assert all(heads == groups and heads % per_unit == 0 for heads, groups in counts)
    return sum(heads for heads, _ in counts) // per_unit


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_every_thousandth(model, dtype) -> None:
    model = model.to(dtype)
    grid, budgets = model.units, [thousandth / 1000 for thousandth in THOUSANDTHS]
    granted = model.grant(budgets, len(budgets)).tolist()
    assert granted == [model.grant(budget, 1).item() for budget in budgets]
    # Budgets with equal grants get the same plan: each grant runs once, as a row of one batch.
    first = {count: budget for budget, count in sorted(zip(budgets, granted, strict=True), reverse=True)}
    prompt = torch.tensor([[1, 5, 9]]).expand(len(first), -1)
    out = model(prompt, latency_budget=list(first.values()))
    cost = {count: units_of(plan, grid.kind, grid.rank) for count, plan in zip(first, out.execution_plan, strict=True)}
    assert len(set(cost.values())) == grid.tunable + 1
    for thousandth, count in zip(THOUSANDTHS, granted, strict=True):
        plan_units, budget = cost[count], thousandth / 1000
        assert plan_units >= grid.prefix
        if plan_units > grid.prefix:
            assert Fraction(plan_units, grid.total) <= Fraction(thousandth, 1000)
        # In float64, as the recorded tables have it: 200 * 0.57 is a hair below 114, and grants 113.
        assert plan_units == grid.total or plan_units + 1 > grid.total * budget
    reports = {report.granted: report for report in out.report}
    assert all(
        reports[grid.fraction(count)].heads[0] == units * grid.num_switches // grid.per_layer
        for count, units in cost.items()
    )


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_a_budget_given_in_a_short_dtype_is_kept_as_it_is_given(model, dtype) -> None:
    """0.85 in bfloat16 is 0.8516: 109 of 128 units. What is given as 0.85 gets 108, whatever the model's dtype."""
    grid, given = model.units, (torch.tensor(list(THOUSANDTHS), dtype=torch.float64) / 1000).to(dtype)
    granted = model.grant(given, len(given))
    over = (grid.prefix + granted).double() / grid.total > given.double()
    assert not (over & (granted > 0)).any()


def test_the_papers_example() -> None:
    config = AdaLlavaConfig(num_hidden_layers=32, num_attention_heads=32, hidden_size=64, vocab_size=8)
    with torch.device("meta"):
        model = AdaLlavaLlamaForCausalLM(config)
    assert model.units.prefix + model.units.granted(0.85) == 108
