"""Computes linear products of many positions in float32 by oneDNN, in half the time of torch's own on some processors.

torch leaves float32 products to MKL, which keeps to narrower vectors on processors that are not Intel's; oneDNN, which
torch is built with, does not. It has no gradients there, and takes longer for a few positions.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional
from torch.utils.flop_counter import register_flop_formula

MIN_POSITIONS = 16
AVAILABLE: bool = torch._C._has_mkldnn and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Return what ``torch.nn.functional.linear`` returns for ``x`` (..., in) and a weight (out, in)."""
    if _suits_onednn(x, weight):
        product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return product
    return functional.linear(x, weight, bias)


def _suits_onednn(x: torch.Tensor, weight: torch.Tensor) -> bool:
    return (
        AVAILABLE
        and x.dtype == weight.dtype == torch.float32
        and x.device.type == "cpu"
        and x.numel() >= MIN_POSITIONS * x.shape[-1]
        and not torch.is_grad_enabled()
    )


if AVAILABLE:

    @register_flop_formula(torch.ops.mkldnn._linear_pointwise)
    def linear_flops(x_shape: torch.Size, weight_shape: torch.Size, *_: Any, out_shape: Any = None, **__: Any) -> int:
        """Return the FLOPs of a product, for ``torch.utils.flop_counter``: two for each weight and position."""
        return 2 * x_shape.numel() * weight_shape[0]
