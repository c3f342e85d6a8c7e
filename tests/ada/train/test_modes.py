"""Training: budgets that are drawn, checkpointing, accumulation, bfloat16, what is logged, and that it learns."""

from __future__ import annotations

import copy

import pytest
import torch
from fixtures.training import layer_runs
from torch.nn import functional

from ada.train.budget_training import BudgetTraining
from ada.train.metrics import loss_by_band
from ada.train.recipe import Recipe

IMAGE, IGNORE = -200, -100


@pytest.mark.parametrize("kind", ["H", "L"])
def test_forward_in_training_draws_a_budget_for_each_sample(make_llava, pixels, batch, kind) -> None:
    model = make_llava(kind).train()
    given = {**batch, "images": pixels}
    torch.manual_seed(0)
    seen = set()
    for _ in range(40):
        out = model(**given)
        assert out.loss.isfinite() and out.labels.shape[1] == out.logits.shape[1]
        per_unit = 2 * model.units.rank if kind == "H" else 2 * model.units.num_switches
        assert (out.gates.detach().sum((1, 2, 3)) == out.granted_units * per_unit).all()
        seen.update(out.granted_units.tolist())
    assert seen == set(range(model.units.tunable + 1)), "the whole grid, both ends included"
    policy = BudgetTraining(Recipe((0.7, 0.9)), model.units)
    drawn = torch.cat([model(**given, **policy.inputs(0, step, 0.0, 0, 4)).granted_units for step in range(12)])
    assert (model.units.granted(0.7), model.units.granted(0.9)) == (drawn.min(), drawn.max())
    out = model(**given, latency_budget=[0.5, 0.6, 0.9, 1.0])
    assert out.granted_units.tolist() == [model.units.granted(b) for b in (0.5, 0.6, 0.9, 1.0)]


@pytest.mark.parametrize("kind", ["H", "L"])
def test_checkpointing_and_accumulation_change_nothing(make_llava, train_batch, kind) -> None:
    gradients, counts = [], []
    for checkpointing in (None, True, False):
        model = make_llava(kind).train()
        if checkpointing is not None:
            model.gradient_checkpointing_enable({"use_reentrant": checkpointing})
            model.enable_input_require_grads()
        with layer_runs() as runs:
            for seed in (3, 4):  # two steps, accumulated
                train_batch(model, torch.tensor([0, 1, 2, 3]), seed).loss.backward()
        counts.append(len(runs))
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert counts == [2 * 5, 4 * 5, 4 * 5], "the layers run again in the backward pass"
    for other in gradients[1:]:
        assert other.keys() == gradients[0].keys()
        for name, gradient in gradients[0].items():
            torch.testing.assert_close(other[name], gradient, atol=1e-5, rtol=1e-4)


def test_bfloat16_trains(make_llava, pixels, batch) -> None:
    model = make_llava("H").to(torch.bfloat16).train()
    out = model(**batch, images=pixels.to(torch.bfloat16))
    out.loss.backward()
    assert out.loss.isfinite() and model.scheduler.mlp_head.weight.grad.abs().sum() > 0
    assert set(out.gates.unique().tolist()) <= {0.0, 1.0}


def test_the_scheduler_learns_from_the_loss_alone(make_llava, pixels, batch) -> None:
    """A few steps on the scheduler only lower the loss at a fixed budget: the gradient points somewhere useful."""
    model = make_llava("H", seed=5).train()
    optimiser = torch.optim.Adam(model.scheduler.parameters(), lr=0.03)
    model.requires_grad_(False)
    model.scheduler.requires_grad_(True)

    @torch.no_grad()
    def loss() -> float:
        copied = copy.deepcopy(model).eval()
        return copied(**batch, images=pixels, latency_budget=0.7).loss.item()

    before = loss()
    torch.manual_seed(0)
    for _ in range(40):
        optimiser.zero_grad()
        model(**batch, images=pixels, latency_budget=0.7).loss.backward()
        optimiser.step()
    assert loss() < before - 0.1


@pytest.mark.parametrize("kind", ["H", "L"])
def test_loss_by_band_averages_each_quarter_of_the_budgets(make_llava, train_batch, kind) -> None:
    model = make_llava(kind, layers=6).train()
    granted = torch.tensor([0, model.units.tunable, model.units.tunable, model.units.tunable // 2])
    out = train_batch(model, granted, 1)
    figures = loss_by_band(model.units, out)
    losses = functional.cross_entropy(out.logits[:, :-1].transpose(1, 2), out.labels[:, 1:], reduction="none")
    tokens = [int((out.labels[rows, 1:] != IGNORE).sum()) for rows in ([0], [3], [1, 2])]
    expected = [losses[r].sum().item() / n for r, n in zip(([0], [3], [1, 2]), tokens, strict=True)]
    means, counts = zip(*figures.values(), strict=True)
    assert list(means) == pytest.approx(expected, rel=1e-5) and list(counts) == tokens
    names = list(figures)
    assert names[0].startswith(f"loss_budget_{model.units.fraction(0):.2f}_") and names[-1].endswith("_1.00")
    for units in range(model.units.tunable + 1):
        (name,) = loss_by_band(model.units, train_batch(model, torch.full((4,), units), 1))
        low, high = map(float, name.split("_")[2:])
        share = model.units.fraction(units)
        assert low - 0.005 <= share and (share < high + 0.005 or high == 1), "a budget falls in the band that is named"
