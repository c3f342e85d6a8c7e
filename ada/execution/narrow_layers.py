"""Cuts a decoder layer's projections to the heads and channels that a plan keeps, once per plan, and caches them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from ada.execution.module_view import with_projections
from ada.execution.weight_pool import WeightPool
from ada.scheduling.execution_plan import LayerPlan, group_bounds

ATTENTION_ROWS, ATTENTION_COLUMNS = ("q_proj", "k_proj", "v_proj"), ("o_proj",)
MLP_ROWS, MLP_COLUMNS = ("gate_proj", "up_proj"), ("down_proj",)


class CutLinear(nn.Module):
    """Linear product with cut weights (out, in) and bias (out,)."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Project ``x`` (B, T, in) to (B, T, out)."""
        return functional.linear(x, self.weight, self.bias)


class ZeroBlock(nn.Module):
    """Replaces an attention or MLP block of which nothing runs: returns zeros."""

    def __init__(self, returns_weights: bool) -> None:
        super().__init__()
        self.returns_weights = returns_weights

    def forward(self, hidden_states: torch.Tensor, **_: Any) -> Any:
        """Return zeros (B, T, D), and None for the attention weights where the block returns them."""
        zeros = torch.zeros_like(hidden_states)
        return (zeros, None) if self.returns_weights else zeros


def can_cut(layer: nn.Module) -> bool:
    """Return whether all projections are plain float matrices in memory.

    Quantised, adapted (LoRA) or offloaded ones cannot be cut; the layer is masked instead.
    """
    return all(
        type(p) is nn.Linear and p.weight.is_floating_point() and not p.weight.is_meta for p in projections(layer)
    )


def projections(layer: Any) -> list[Any]:
    """Return the seven projections of a decoder layer: q, k, v, o, gate, up, down."""
    attention = [layer.self_attn._modules[name] for name in (*ATTENTION_ROWS, *ATTENTION_COLUMNS)]
    return attention + [layer.mlp._modules[name] for name in (*MLP_ROWS, *MLP_COLUMNS)]


def projection_bytes(layer: Any) -> int:
    """Return the bytes of the seven projections: the maximum that a narrow layer can take."""
    return sum(p.weight.nbytes for p in projections(layer))


def runs(bounds: Sequence[tuple[int, int]], kept: Sequence[int]) -> list[tuple[int, int]]:
    """Return kept groups as ranges [start, end), neighbours joined: fewer and longer copies."""
    joined: list[tuple[int, int]] = []
    for group in kept:
        start, end = bounds[group]
        if joined and joined[-1][1] == start:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined


def _cut(linear: nn.Linear, ranges: list[tuple[int, int]], dim: int, pool: WeightPool | None) -> CutLinear:
    bias: torch.Tensor | None = linear.bias
    if bias is not None and dim == 0:
        bias = torch.cat([bias[start:end] for start, end in ranges])
    if pool is None:
        parts = [linear.weight.narrow(dim, start, end - start) for start, end in ranges]
        return CutLinear(torch.cat(parts, dim=dim), bias)
    source = linear.weight
    shape = [*source.shape]
    shape[dim] = sum(end - start for start, end in ranges)
    weight = pool.take((shape[0], shape[1]), source.numel(), source)
    filled = 0
    for start, end in ranges:
        weight.narrow(dim, filled, end - start).copy_(source.narrow(dim, start, end - start))
        filled += end - start
    return CutLinear(weight, bias)


def cut_projections(layer: Any, plan: LayerPlan, num_switches: int, pool: WeightPool | None) -> dict[str, CutLinear]:
    """Return the projections that ``plan`` makes smaller, by name; none for a block that runs dense or not at all.

    A kept key-value group keeps its keys, its values and all its query heads. Without a pool the cut weights are
    differentiable functions of the full ones.
    """
    cuts = {}
    for part, rows, columns, kept in (
        (layer.self_attn, ATTENTION_ROWS, ATTENTION_COLUMNS, plan.heads),
        (layer.mlp, MLP_ROWS, MLP_COLUMNS, plan.neuron_groups),
    ):
        if not 0 < len(kept) < num_switches:
            continue
        for name in (*rows, *columns):
            linear, dim = part._modules[name], int(name in columns)
            bounds = group_bounds(linear.weight.shape[dim], num_switches)
            cuts[name] = _cut(linear, runs(bounds, kept), dim, pool)
    return cuts


def narrow_layer(layer: Any, plan: LayerPlan, cuts: dict[str, CutLinear]) -> Any:
    """Return the layer cut to ``plan``: same class, same forward, smaller matrices."""
    narrow = with_projections(layer, cuts)
    if not plan.heads:
        narrow._modules["self_attn"] = ZeroBlock(returns_weights=True)
    if not plan.neuron_groups:
        narrow._modules["mlp"] = ZeroBlock(returns_weights=False)
    return narrow


class NarrowCache:
    """Thread-safe cache of least-recently-used narrow layers, keyed by (layer, kept set) and bounded in bytes.

    An entry made from weights that have changed since (a training step, a move to another device) is made anew.
    Where gradients are wanted nothing is kept: the layer is cut inside the graph. A copied or unpickled cache is empty.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._entries: OrderedDict[tuple[int, LayerPlan], tuple[tuple[Any, ...], Any, int]] = OrderedDict()
        self._bytes = 0
        self._pool = WeightPool()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[NarrowCache], tuple[int]]:
        return NarrowCache, (self.max_bytes,)

    def get(self, index: int, layer: nn.Module, plan: LayerPlan, num_switches: int) -> Any:
        """Return the narrow layer for ``plan``, from the cache or cut now."""
        if torch.is_grad_enabled() and any(p.requires_grad for p in layer.parameters()):
            return narrow_layer(layer, plan, cut_projections(layer, plan, num_switches, pool=None))
        version = tuple(map(_version, layer.parameters()))
        key = (index, plan)
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None and entry[0] == version:
                self._entries.move_to_end(key)
                return entry[1]
        with self._lock:  # old plans go first, so that this one is cut into their memory
            while self._bytes + projection_bytes(layer) > self.max_bytes and self._entries:
                self._drop(next(iter(self._entries)))
        # Ordinary tensors, whoever asks first: what inference mode makes cannot be used outside of it.
        with torch.inference_mode(False), torch.no_grad():
            cuts = cut_projections(layer, plan, num_switches, self._pool)
        narrow = narrow_layer(layer, plan, cuts)
        with self._lock:
            self._drop(key)
            self._entries[key] = (version, narrow, projection_bytes(layer))
            self._bytes += self._entries[key][2]
        return narrow

    def clear(self) -> None:
        """Forget every narrow layer, and release its memory."""
        with self._lock:
            self._entries.clear()
            self._bytes = 0
        self._pool.clear()

    def _drop(self, key: tuple[int, LayerPlan]) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= entry[2]


def _version(parameter: torch.Tensor) -> tuple[int, int]:
    """Return what changes when the tensor is replaced or written to.

    Tensors made in inference mode do not count writes.
    """
    return parameter.data_ptr(), -1 if parameter.is_inference() else parameter._version
