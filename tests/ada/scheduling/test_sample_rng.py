"""Chance in training: a sample's random numbers follow from seed, step and place alone."""

import math

import pytest
import torch

from ada.scheduling.sample_rng import Draws
from ada.scheduling.selection import select_layers, select_switches


def test_a_batch_may_be_cut_anywhere():
    """Eight samples as one batch, in two processes, in passes of one: the same budgets and the same noise."""
    full = Draws(seed=3, step=7)
    units, noise = full.integers(0, 20, 8), full.gumbel(8)
    first, second = noise((8, 5)), noise((8, 2, 3))
    for size in (4, 2, 1):
        for start in range(0, 8, size):
            part = Draws(seed=3, step=7, first=start)
            own = part.gumbel(size)
            rows = slice(start, start + size)
            assert torch.equal(part.integers(0, 20, size), units[rows])
            assert torch.equal(own((size, 5)), first[rows])
            assert torch.equal(own((size, 2, 3)), second[rows])


def test_every_seed_step_and_place_has_its_own():
    found = {
        tuple(Draws(seed, step, index).gumbel(1)((1, 4)).flatten().tolist())
        for seed in (0, 1)
        for step in (0, 1, 11)
        for index in (0, 1, 111)
    }
    assert len(found) == 18
    assert torch.equal(Draws(0, 1).integers(0, 99, 3), Draws(0, 1).integers(0, 99, 3)), "asked again, drawn again"


def test_units_are_even_over_the_range():
    drawn = torch.cat([Draws(0, step).integers(3, 6, 16) for step in range(500)])
    counts = torch.bincount(drawn, minlength=8)
    assert counts[:3].sum() == counts[7] == 0
    expected = len(drawn) / 4
    assert (counts[3:7] - expected).abs().max() < 5 * math.sqrt(expected)


def test_noise_is_gumbel():
    """By its mean, Euler's constant, and its variance, pi**2 / 6."""
    drawn = Draws(0, 0).gumbel(4)((4, 50_000))
    assert drawn.mean().item() == pytest.approx(0.5772, abs=0.02)
    assert drawn.var().item() == pytest.approx(math.pi**2 / 6, abs=0.05)


@pytest.mark.parametrize("kind", ["L", "H"])
def test_a_samples_choice_does_not_depend_on_its_batch(kind):
    """Budgets of the other rows change how many draws there are; a row's own are the same."""
    shape = (6, 5) if kind == "L" else (6, 3, 2, 4)
    logits = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    units = torch.tensor([1, 3, 0, 2, 4, 1])

    def choose(rows: slice):
        noise = Draws(1, 2, first=rows.start).gumbel(rows.stop - rows.start)
        more = () if kind == "L" else (2,)
        return (select_layers if kind == "L" else select_switches)(logits[rows], units[rows], *more, noise)

    full = choose(slice(0, 6))
    assert torch.equal(torch.cat([choose(slice(row, row + 1)) for row in range(6)]), full)


@pytest.mark.parametrize("kind", ["L", "H"])
def test_no_units_give_gradients_of_zero(kind):
    """And not none: with DeepSpeed every process must have a gradient where another has one."""
    logits = torch.randn((2, 5) if kind == "L" else (2, 3, 2, 4), requires_grad=True)
    none = torch.zeros(2, dtype=torch.long)
    noise = Draws(0, 0).gumbel(2)
    gates = select_layers(logits, none, noise) if kind == "L" else select_switches(logits, none, 2, noise)
    assert not gates.any()
    gates.sum().backward()
    assert torch.equal(logits.grad, torch.zeros_like(logits))
