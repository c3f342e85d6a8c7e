"""Selection against a slow obvious version, one row and one unit at a time."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ada.bench.selection import best_one_by_one
from ada.scheduling.planners import PLANNERS
from ada.scheduling.selection import TEMPERATURE, gumbel, select_layers, select_switches
from ada.scheduling.units import Units


def slow_switches(logits: torch.Tensor, units: int, rank: int, layer_noise, switch_noise) -> torch.Tensor:
    """One row (N, 2, A): a literal reading of the method, differentiable by plain autograd."""
    layers, _, a = logits.shape
    on = torch.zeros_like(logits)
    gates = torch.zeros_like(logits)
    for unit in range(units):
        masked = torch.where(on.bool(), -torch.inf, logits + layer_noise[unit]).flatten()
        soft = torch.softmax(masked / TEMPERATURE, 0)
        hard = torch.zeros_like(soft)
        hard[masked.argmax()] = 1
        weight = (hard + soft - soft.detach()).view(layers, -1).sum(1)  # straight-through one-hot over layers
        layer = int(masked.argmax()) // (2 * a)
        for component in range(2):
            off = on[layer, component] == 0
            noisy = (weight[:, None] * logits[:, component]).sum(0) + switch_noise[unit][component]
            soft = torch.softmax(torch.where(off, noisy / TEMPERATURE, -torch.inf), -1)
            order = torch.where(off, noisy.detach(), -torch.inf).argsort(descending=True)
            hard = torch.zeros(a)
            hard[order[:rank]] = 1
            piece = weight[:, None] * (hard + soft - soft.detach())
            gates = gates + torch.nn.functional.pad(piece[:, None], (0, 0, component, 1 - component))
            on[layer, component] += hard
    return gates


@settings(deadline=None, max_examples=300)
@given(
    st.integers(0, 10**6), st.integers(1, 6), st.sampled_from([(4, 1), (4, 2), (8, 2), (8, 8), (6, 3)]), st.booleans()
)
def test_switches_without_noise_are_the_best_one_by_one(
    seed: int, layers: int, grid: tuple[int, int], tied: bool
) -> None:
    """Also among few values, of which many are equal."""
    torch.manual_seed(seed)
    switches, rank = grid
    shape = (3, layers, 2, switches)
    logits = torch.randint(-2, 3, shape).float() if tied else torch.randn(shape)
    units = torch.randint(0, layers * switches // rank + 1, (3,))
    expected = best_one_by_one(logits, units, rank)
    assert torch.equal(select_switches(logits, units, rank), expected)
    for row in range(3):
        alone = select_switches(logits[row : row + 1], units[row : row + 1], rank)
        assert torch.equal(alone[0], expected[row]), "a row's plan does not depend on its batch"


@pytest.mark.parametrize("share", [0.25, 0.5, 0.85, 1])
def test_switches_of_7b_sizes_are_the_best_one_by_one(share: float) -> None:
    logits = torch.randn(2, 32, 2, 32, generator=torch.Generator().manual_seed(3)).bfloat16().float()  # with ties
    units = torch.full((2,), int(share * 256))
    assert torch.equal(select_switches(logits, units, 4), best_one_by_one(logits, units, 4))


def test_equal_logits_are_taken_by_index() -> None:
    units = torch.tensor([0, 1, 2, 5])
    assert select_layers(torch.zeros(4, 6), units).tolist() == [[1.0] * k + [0.0] * (6 - k) for k in units.tolist()]
    gates = select_switches(torch.zeros(4, 3, 2, 4), units, 2)
    for gate, k in zip(gates, units.tolist(), strict=True):
        for component in range(2):
            assert gate[:, component].flatten().tolist() == [1.0] * 2 * k + [0.0] * (12 - 2 * k)


@pytest.mark.parametrize("shape", [(0, 3), (2, 0)])
def test_nothing_to_select_gives_no_gates(shape: tuple[int, int]) -> None:
    batch, layers = shape
    units = torch.zeros(batch, dtype=torch.long)
    assert select_layers(torch.zeros(batch, layers), units).shape == shape
    assert select_switches(torch.zeros(batch, layers, 2, 4), units, 2).shape == (batch, layers, 2, 4)


class Recorded:
    """Noise that is drawn once, kept, and can be asked for again row by row."""

    def __init__(self, seed: int) -> None:
        self.draw = gumbel(torch.Generator().manual_seed(seed))
        self.drawn: list[torch.Tensor] = []

    def __call__(self, shape):
        self.drawn.append(self.draw(shape))
        return self.drawn[-1]


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.integers(1, 4), st.sampled_from([1, 2, 4]))
def test_switches_and_gradients_agree_with_the_slow_version(seed: int, layers: int, rank: int) -> None:
    torch.manual_seed(seed)
    batch, a = 3, 4
    logits = torch.randn(batch, layers, 2, a, requires_grad=True)
    units = torch.randint(0, layers * a // rank + 1, (batch,))
    noise = Recorded(seed)
    gates = select_switches(logits, units, rank, noise)
    weight = torch.randn_like(gates)
    copied = logits.detach().requires_grad_()
    slow = torch.stack(
        [
            slow_switches(
                copied[row],
                int(units[row]),
                rank,
                [x[row] for x in noise.drawn[0::2]],
                [x[row] for x in noise.drawn[1::2]],
            )
            for row in range(batch)
        ]
    )
    torch.testing.assert_close(gates, slow, atol=1e-6, rtol=0)
    assert ((gates == 0) | (gates == 1)).all(), "gates are exact, so that a full plan changes nothing"
    assert (gates.sum((1, 2, 3)) == 2 * rank * units).all()
    if int(units.max()):
        (gradient,) = torch.autograd.grad((gates * weight).sum(), logits)
        (expected,) = torch.autograd.grad((slow * weight).sum(), copied)
        torch.testing.assert_close(gradient, expected, atol=1e-6, rtol=1e-5)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.integers(1, 9))
def test_layers_without_noise_are_the_best_k(seed: int, layers: int) -> None:
    torch.manual_seed(seed)
    logits, units = torch.randn(5, layers), torch.randint(0, layers + 1, (5,))
    gates = select_layers(logits, units)
    for row, k in enumerate(units.tolist()):
        assert set(gates[row].nonzero()[:, 0].tolist()) == set(logits[row].topk(k).indices.tolist())


def test_layer_draws_have_the_gumbel_frequencies() -> None:
    """Drawing one of N with Gumbel noise is drawing from the softmax."""
    torch.manual_seed(0)
    logits = torch.tensor([0.0, 1.0, 2.0]).expand(20_000, 3)
    gates = select_layers(logits, torch.ones(20_000, dtype=torch.long), gumbel())
    torch.testing.assert_close(gates.mean(0), torch.softmax(logits[0], 0), atol=0.015, rtol=0)


@pytest.mark.parametrize("name", PLANNERS)
@pytest.mark.parametrize("grid", [Units("H", 6, 2, 8, 2), Units("L", 6, 2, 8, 2)])
def test_every_planner_spends_its_units_exactly(name: str, grid: Units) -> None:
    torch.manual_seed(1)
    granted = torch.arange(grid.tunable + 1)
    shape = (len(granted), grid.num_tunable_layers, *(() if grid.kind == "L" else (2, grid.num_switches)))
    gates = PLANNERS[name](grid, granted, torch.randn(shape))
    assert gates.shape == (len(granted), grid.num_tunable_layers, 2, grid.num_switches)
    per_unit = 2 * grid.num_switches if grid.kind == "L" else 2 * grid.rank
    assert (gates.sum((1, 2, 3)) == granted * per_unit).all()


def test_even_is_even_and_last_drops_the_last_layers() -> None:
    grid = Units("L", 12, 4, 4, 2)
    even = PLANNERS["even"](grid, torch.tensor([4]), None)[0, :, 0, 0]
    assert (even.view(4, 2).sum(1) == 1).all(), "four of eight layers: one of each pair"
    last = PLANNERS["last"](grid, torch.tensor([3]), None)[0, :, 0, 0]
    assert last.tolist() == [1, 1, 1, 0, 0, 0, 0, 0]
