"""Products of many positions: torch's own values, gradients where they are asked for, FLOPs counted."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from ada.execution.linear import AVAILABLE, MIN_POSITIONS, linear


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 24), (15, 24), (16, 24), (3, 40, 24)], ids=str)
def test_product_is_torchs_own(dtype, has_bias, shape) -> None:
    torch.manual_seed(0)
    x, weight, bias = torch.randn(shape, dtype=dtype), torch.randn(37, 24, dtype=dtype), torch.randn(37, dtype=dtype)
    taken = bias if has_bias else None
    with torch.no_grad():
        torch.testing.assert_close(linear(x, weight, taken), functional.linear(x, weight, taken))


def test_product_of_a_part_of_a_matrix_is_torchs_own() -> None:
    x, weight = torch.randn(40, 24)[::2], torch.randn(60, 24)[7:44]
    with torch.inference_mode():
        torch.testing.assert_close(linear(x, weight), functional.linear(x, weight))


def test_product_has_its_gradients() -> None:
    x, weight = torch.randn(40, 24, requires_grad=True), torch.randn(37, 24, requires_grad=True)
    linear(x, weight).square().sum().backward()
    other = x.detach().requires_grad_()
    functional.linear(other, weight.detach()).square().sum().backward()
    torch.testing.assert_close(x.grad, other.grad)
    assert weight.grad is not None


@pytest.mark.skipif(not AVAILABLE, reason="torch is built without oneDNN")
def test_product_of_many_positions_is_onednns_and_its_flops_are_counted() -> None:
    x, weight = torch.randn(MIN_POSITIONS, 24), torch.randn(37, 24)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        linear(x, weight)
    assert counter.get_total_flops() == 2 * MIN_POSITIONS * 24 * 37
    assert torch.ops.mkldnn._linear_pointwise in counter.get_flop_counts()["Global"]
