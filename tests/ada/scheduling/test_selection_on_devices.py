"""A CUDA GPU chooses what a CPU chooses; each check also runs on the CPU, so that it is known to work."""

from __future__ import annotations

import copy

import pytest
import torch

from ada.execution.maskable_layer import GatedLinear
from ada.scheduling.plan_maker import PlanMaker
from ada.scheduling.planners import PLANNERS
from ada.scheduling.scheduler import Scheduler
from ada.scheduling.selection import select_layers, select_switches
from ada.scheduling.units import Units

GRIDS = [Units("H", 12, 4, 8, 2), Units("L", 12, 4, 8, 2)]
WIDTH = 64


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> torch.device:
    """A device."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return torch.device(request.param)


def logits_of(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """Logits on the CPU; in every second case of few values, of which many are equal."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(shape, generator=generator)
    return logits.round() if seed % 2 else logits


@pytest.mark.parametrize("seed", range(20))
def test_gates_equal_those_of_the_cpu(device: torch.device, seed: int) -> None:
    units = torch.arange(9)
    layers, switches = logits_of((9, 8), seed), logits_of((9, 4, 2, 8), seed)
    assert torch.equal(select_layers(layers.to(device), units.to(device)).cpu(), select_layers(layers, units))
    found = select_switches(switches.to(device), units.to(device), 4)
    assert torch.equal(found.cpu(), select_switches(switches, units, 4))


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("grid", GRIDS, ids="HL")
def test_plans_of_the_same_states_equal_those_of_the_cpu(device: torch.device, grid: Units, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    scheduler = Scheduler(grid, WIDTH).to(dtype)
    hidden, granted = torch.randn(grid.tunable + 1, WIDTH).to(dtype), torch.arange(grid.tunable + 1)
    expected_scores = PlanMaker(grid, PLANNERS["learned"], scheduler).score(hidden)
    expected = PlanMaker(grid, PLANNERS["learned"], scheduler)(expected_scores, granted)
    maker = PlanMaker(grid, PLANNERS["learned"], copy.deepcopy(scheduler).to(device))
    scores = maker.score(hidden.to(device))
    assert scores.device.type == "cpu", "the host makes the plan"
    torch.testing.assert_close(scores, expected_scores, atol=1e-5, rtol=1e-5)
    assert torch.equal(maker(scores, granted), expected)
    for row in range(len(hidden)):
        alone = maker.score(hidden[row : row + 1].to(device))
        assert torch.equal(maker(alone, granted[row : row + 1])[0], expected[row])


@torch.no_grad()
@pytest.mark.parametrize("channels", [64, 45])
def test_gated_projection_waits_for_nothing(device: torch.device, channels: int) -> None:
    linear = torch.nn.Linear(channels, 16)
    x, gates = torch.randn(3, 5, channels), (torch.arange(12) % 3 > 0).float().view(3, 4)
    expected = GatedLinear(linear, gates)(x)
    gated, x = GatedLinear(copy.deepcopy(linear).to(device), gates.to(device)), x.to(device)
    mode = torch.cuda.get_sync_debug_mode() if device.type == "cuda" else None
    try:
        if mode is not None:
            torch.cuda.set_sync_debug_mode("error")
        found = gated(x)
    finally:
        if mode is not None:
            torch.cuda.set_sync_debug_mode(mode)
    torch.testing.assert_close(found.cpu(), expected, atol=1e-3, rtol=1e-3)  # TF32 may round products
