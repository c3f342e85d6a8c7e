"""Runs a decoder layer as the module that it is, with the products that a plan leaves of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ada.execution.layer_weights import (
    ATTENTION_COLUMNS,
    ATTENTION_ROWS,
    MLP_COLUMNS,
    MLP_ROWS,
    LayerWeights,
    Projection,
)
from ada.execution.module_view import with_projections


class CutLinear(nn.Module):
    """Linear product with cut weights (out, in) and bias (out,)."""

    def __init__(self, projection: Projection) -> None:
        super().__init__()
        self.projection = projection

    @property
    def weight(self) -> torch.Tensor:
        """The weight (out, in)."""
        return self.projection.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Project ``x`` (B, T, in) to (B, T, out)."""
        return self.projection(x)


class ZeroBlock(nn.Module):
    """Replaces an attention or MLP block of which nothing runs: returns zeros."""

    def __init__(self, returns_weights: bool) -> None:
        super().__init__()
        self.returns_weights = returns_weights

    def forward(self, hidden_states: torch.Tensor, **_: Any) -> Any:
        """Return zeros (B, T, D), and None for the attention weights where the block returns them."""
        zeros = torch.zeros_like(hidden_states)
        return (zeros, None) if self.returns_weights else zeros


def narrow_layer(layer: Any, weights: LayerWeights) -> Any:
    """Return the layer with these weights: same class, same forward, smaller matrices."""
    cuts: dict[str, nn.Module] = {}
    if weights.qkv is not None and weights.output is not None:
        queries = weights.output.weight.shape[1]
        keys = (len(weights.qkv.weight) - queries) // 2
        cuts |= _named(ATTENTION_ROWS, weights.qkv, [queries, keys, keys])
        cuts |= _named(ATTENTION_COLUMNS, weights.output)
    if weights.gate_up is not None and weights.down is not None:
        neurons = weights.down.weight.shape[1]
        cuts |= _named(MLP_ROWS, weights.gate_up, [neurons, neurons])
        cuts |= _named(MLP_COLUMNS, weights.down)
    narrow = with_projections(layer, cuts)
    if weights.qkv is None:
        narrow._modules["self_attn"] = ZeroBlock(returns_weights=True)
    if weights.gate_up is None:
        narrow._modules["mlp"] = ZeroBlock(returns_weights=False)
    return narrow


def _named(names: tuple[str, ...], product: Projection, rows: list[int] | None = None) -> dict[str, nn.Module]:
    """Give the parts of a joint product the names of a layer's projections; rows: of each part."""
    cuts: dict[str, nn.Module] = {}
    start = 0
    for name, width in zip(names, rows or [len(product.weight)], strict=True):
        cuts[name] = CutLinear(product.rows(start, start + width))
        start += width
    return cuts
