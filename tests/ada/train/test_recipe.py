"""Recipe and policy of training: sandwich, temperature, distillation, what the scheduler reads."""

from __future__ import annotations

import pytest
import torch

from ada.scheduling.sample_rng import Draws
from ada.scheduling.units import Units
from ada.train.arguments import AdaArguments
from ada.train.budget_training import BudgetTraining
from ada.train.recipe import Recipe, distance
from llava.errors import OptionError

IGNORE = -100
UNITS = Units("H", num_layers=10, num_prefix_layers=2, num_switches=8, rank=2)


def shares(recipe: Recipe) -> dict[int, float]:
    drawn = recipe.draw_units(UNITS, Draws(0, 0), 20_000)
    return {int(units): (drawn == units).float().mean().item() for units in drawn.unique()}


def test_uniform_draws_are_even_over_the_range() -> None:
    found = shares(Recipe((0.5, 1.0)))
    assert list(found) == list(range(12, 33))
    assert all(share == pytest.approx(1 / 21, abs=0.01) for share in found.values())


def test_sandwich_draws_have_a_quarter_at_either_end() -> None:
    found = shares(Recipe((0.5, 1.0), sandwich=True))
    minimum, *between, maximum = found.values()
    assert list(found) == list(range(12, 33))
    assert (minimum, maximum) == pytest.approx((0.25 + 0.5 / 21,) * 2, abs=0.015)
    assert all(share == pytest.approx(0.5 / 21, abs=0.008) for share in between)


def test_temperature_scales_the_draws() -> None:
    draws, recipe = Draws(1, 0), Recipe((0.5, 1.0), temperatures=(0.3, 0.3))
    expected = draws.gumbel(5)((5, 7)) * 0.3
    torch.testing.assert_close(recipe.noise(draws, 5)((5, 7)), expected)


@pytest.mark.parametrize("kind", ["H", "L"])
def test_at_temperature_0_training_runs_the_plan_of_inference(make_llava, batch, pixels, kind) -> None:
    model = make_llava(kind, seed=3)
    budgeted = {**batch, "images": pixels, "latency_budget": 0.8}
    calm = model.eval()(**budgeted).gates
    model.train()

    def gates(temperature: float, seed: int) -> torch.Tensor:
        recipe = Recipe((0.5, 1.0), temperatures=(temperature, temperature))
        return model(**budgeted, noise=recipe.noise(Draws(seed, 0), len(calm))).gates

    assert torch.equal(gates(0.0, 0), calm)
    assert any(not torch.equal(gates(100.0, seed), calm) for seed in range(8))


def test_temperature_is_linear_from_start_to_end() -> None:
    recipe = Recipe((0.5, 1.0), temperatures=(1.0, 0.2))
    assert [recipe.temperature(progress) for progress in (0, 0.5, 1, 0.25)] == pytest.approx([1.0, 0.6, 0.2, 0.8])


def test_policy_draws_the_same_however_a_step_is_cut() -> None:
    policy = BudgetTraining(Recipe((0.5, 1.0), temperatures=(1.0, 0.5)), UNITS)
    full = policy.inputs(seed=3, step=7, progress=0.5, first=0, rows=4)
    halves = [policy.inputs(seed=3, step=7, progress=0.5, first=first, rows=2) for first in (0, 2)]
    assert torch.equal(full["granted_units"], torch.cat([half["granted_units"] for half in halves]))
    assert torch.equal(full["noise"]((4, 3)), torch.cat([half["noise"]((2, 3)) for half in halves]))


def test_distance_is_the_divergence_at_supervised_tokens() -> None:
    generator = torch.Generator().manual_seed(0)
    ours, theirs = (torch.randn(2, 4, 6, generator=generator) for _ in range(2))
    labels = torch.tensor([[IGNORE, 3, IGNORE, 1], [IGNORE, IGNORE, 5, 2]])
    by_hand = []
    for row, column in ((0, 1), (0, 3), (1, 2), (1, 3)):
        p, q = (x[row, column - 1].double().softmax(0) for x in (theirs, ours))
        by_hand.append((p * (p / q).log()).sum())
    total = torch.stack(by_hand).sum().item()
    assert distance(ours, theirs, labels).item() == pytest.approx(total / 4, rel=1e-5)
    assert distance(ours, theirs, labels, 10).item() == pytest.approx(total / 10, rel=1e-5)
    assert distance(ours, ours, labels).item() == pytest.approx(0, abs=1e-6)


def loss_with_distillation(model, weight: float, inputs: dict) -> torch.Tensor:
    """The loss as the trainer makes it: the model's, and the policy's terms."""
    policy = BudgetTraining(Recipe((0.5, 1.0), distillation=weight), model.units)
    terms = policy.loss_terms(model, {k: v for k, v in inputs.items() if k != "latency_budget"})
    outputs = model(**inputs)
    return outputs.loss + sum(term(outputs, None) for term in terms)


def no_noise(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.zeros(shape)


@pytest.mark.parametrize("kind", ["H", "L"])
def test_distillation_adds_the_distance_to_the_model_in_full(make_llava, batch, pixels, kind) -> None:
    model = make_llava(kind, seed=3).train()
    inputs = {**batch, "images": pixels, "latency_budget": 0.8, "noise": no_noise}
    plain = model(**inputs)
    distilled = loss_with_distillation(model, 0.5, inputs)
    with torch.no_grad():
        full = model.eval()(**{**inputs, "latency_budget": 1.0})
    divergence = distance(plain.logits, full.logits, plain.labels)
    assert divergence > 0.01
    torch.testing.assert_close(distilled, plain.loss + 0.5 * divergence)
    distilled.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.scheduler.parameters())


def test_distillation_at_full_budget_adds_nothing(make_llava, batch, pixels) -> None:
    model = make_llava("H", seed=3).train()
    inputs = {**batch, "images": pixels, "latency_budget": 1.0}
    torch.testing.assert_close(loss_with_distillation(model, 3.0, inputs), model(**inputs).loss)


@pytest.mark.parametrize("reads", ["content", "budget"])
def test_a_scheduler_that_reads_the_budget_alone_has_one_plan_a_budget(make_llava, batch, pixels, reads) -> None:
    """In some of a few random models prompts change the plan, where it may; of which ones depends on the CPU."""
    alike = []
    for seed in range(5):
        model = make_llava("H", seed=seed).eval()
        model.config.scheduler_input = reads
        with torch.no_grad():
            model.scheduler.mlp_head.weight.mul_(50)
            gates = model(**batch, images=pixels, latency_budget=0.7).gates
        alike.append(all(torch.equal(row, gates[0]) for row in gates))
    assert all(alike) == (reads == "budget")


@pytest.mark.parametrize(
    "flags",
    [
        {"budget_sampling": "even"},
        {"scheduler_input": "picture"},
        {"distillation_weight": -1.0},
        {"distillation_weight": float("nan")},
        {"scheduler_lr": -1e-3},
        {"scheduler_temperature": "hot"},
        {"scheduler_temperature": "1:-1"},
        {"scheduler_temperature": "nan:1"},
        {"scheduler_temperature": ":1"},
    ],
)
def test_flags_that_are_none(flags) -> None:
    with pytest.raises(OptionError, match=f"--{next(iter(flags))} is "):
        AdaArguments(**flags)


def test_flags_make_the_recipe() -> None:
    flags = {"budget_sampling": "sandwich", "distillation_weight": 0.5, "scheduler_temperature": "2:0.5"}
    arguments = AdaArguments(latency_budget="0.5:0.9", **flags)
    assert arguments.recipe(UNITS) == Recipe((0.5, 0.9), True, 0.5, (2.0, 0.5))
    assert AdaArguments().recipe(UNITS) == Recipe((0.2, 1.0)), "as published"
