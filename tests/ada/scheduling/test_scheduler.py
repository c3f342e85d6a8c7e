"""The scheduler's head: float32 whatever the model's dtype, so that no plan hangs on rounding."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ada.scheduling.plan_maker import PlanMaker
from ada.scheduling.planners import PLANNERS
from ada.scheduling.scheduler import Scheduler
from ada.scheduling.units import Units

HALVES = [torch.bfloat16, torch.float16]
GRIDS = [Units("H", 12, 4, 8, 2), Units("L", 12, 4, 8, 2)]
WIDTH = 64


def make_scheduler(grid: Units, dtype: torch.dtype) -> Scheduler:
    torch.manual_seed(0)
    return Scheduler(grid, WIDTH).to(dtype)


def states(rows: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(rows, WIDTH, generator=torch.Generator().manual_seed(1)).to(dtype)


def plans(scheduler: Scheduler, grid: Units, hidden: torch.Tensor, granted: torch.Tensor) -> torch.Tensor:
    """Gates (B, N, 2, A) that the learned planner makes of the states."""
    maker = PlanMaker(grid, PLANNERS["learned"], scheduler)
    return maker(maker.score(hidden), granted)


@torch.no_grad()
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
@pytest.mark.parametrize("grid", GRIDS, ids="HL")
def test_logits_are_rounded_to_float32_alone(grid: Units, dtype: torch.dtype, autocast: bool) -> None:
    scheduler, hidden = make_scheduler(grid, dtype), states(5, dtype)
    head = scheduler.mlp_head
    exact = hidden.double() @ head.weight.double().T + head.bias.double()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        logits = scheduler(hidden)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits.flatten(1).double(), exact, atol=1e-6, rtol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("grid", GRIDS, ids="HL")
def test_plans_of_a_batch_in_half_precision_equal_plans_alone(grid: Units, dtype: torch.dtype) -> None:
    scheduler, hidden = make_scheduler(grid, dtype), states(grid.tunable + 1, dtype)
    granted = torch.arange(grid.tunable + 1)
    batch = plans(scheduler, grid, hidden, granted)
    for row in range(len(hidden)):
        assert torch.equal(plans(scheduler, grid, hidden[row : row + 1], granted[row : row + 1])[0], batch[row])


@torch.no_grad()
@pytest.mark.parametrize("dtype", HALVES)
def test_switches_of_equal_weights_are_taken_by_index(dtype: torch.dtype) -> None:
    """Every second switch has the weights of the one before it: of two the first is on, in every batch."""
    grid = Units("H", 6, 2, 8, 1)
    scheduler = make_scheduler(grid, dtype)
    for values in (scheduler.mlp_head.weight, scheduler.mlp_head.bias):
        values[1::2] = values[::2]
    hidden, granted = states(17, dtype), torch.arange(17)
    batch = plans(scheduler, grid, hidden, granted)
    assert (batch[..., ::2] >= batch[..., 1::2]).all()
    assert (batch[..., ::2] > batch[..., 1::2]).any(), "a tie was broken"
    for row in range(17):
        assert torch.equal(plans(scheduler, grid, hidden[row : row + 1], granted[row : row + 1])[0], batch[row])


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_weights_keep_their_names_and_dtype_and_get_gradients_in_it(dtype: torch.dtype) -> None:
    scheduler, hidden = make_scheduler(GRIDS[0], dtype), states(3, dtype).requires_grad_()
    assert {"mlp_head.weight", "mlp_head.bias"} < set(scheduler.state_dict())
    assert {value.dtype for value in scheduler.state_dict().values()} == {dtype}
    plain = nn.Linear(WIDTH, scheduler.mlp_head.out_features)  # float32, of the same values
    plain.load_state_dict(scheduler.mlp_head.state_dict())
    copied = hidden.detach().float().requires_grad_()
    scheduler(hidden).square().sum().backward()
    plain(copied).square().sum().backward()
    found = (scheduler.mlp_head.weight, scheduler.mlp_head.bias, hidden)
    for ours, other in zip(found, (plain.weight, plain.bias, copied), strict=True):
        assert ours.grad.dtype == dtype
        assert torch.equal(ours.grad, other.grad.to(dtype))
