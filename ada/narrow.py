"""Narrow layers: a decoder layer's projections cut to the kept heads and channels, gathered once per plan."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from ada.layer_view import layer_view
from ada.plan import LayerPlan, group_bounds
from ada.weight_pool import WeightPool

ATTENTION_ROWS, ATTENTION_COLUMNS = ("q_proj", "k_proj", "v_proj"), ("o_proj",)
MLP_ROWS, MLP_COLUMNS = ("gate_proj", "up_proj"), ("down_proj",)


class CutLinear(nn.Module):
    """A linear product with cut weights."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(x, self.weight, self.bias)


class Nothing(nn.Module):
    """Stands for an attention or MLP block of which nothing runs."""

    def __init__(self, returns_weights: bool) -> None:
        super().__init__()
        self.returns_weights = returns_weights

    def forward(self, hidden_states: torch.Tensor, **_: Any) -> Any:
        zeros = torch.zeros_like(hidden_states)
        return (zeros, None) if self.returns_weights else zeros


def can_cut(layer: nn.Module) -> bool:
    """Are all projections plain float matrices? Quantised or adapted ones are masked instead."""
    return all(type(p) is nn.Linear and p.weight.is_floating_point() for p in projections(layer))


def projections(layer: Any) -> list[Any]:
    """The seven projections of a decoder layer."""
    attention = [layer.self_attn._modules[name] for name in (*ATTENTION_ROWS, *ATTENTION_COLUMNS)]
    return attention + [layer.mlp._modules[name] for name in (*MLP_ROWS, *MLP_COLUMNS)]


def projection_bytes(layer: Any) -> int:
    """Bytes of the seven projections: the most that a narrow twin can take."""
    return sum(p.weight.nbytes for p in projections(layer))


def runs(bounds: Sequence[tuple[int, int]], kept: Sequence[int]) -> list[tuple[int, int]]:
    """Kept groups as ranges [start, end), neighbours joined: fewer and longer copies."""
    joined: list[tuple[int, int]] = []
    for group in kept:
        start, end = bounds[group]
        if joined and joined[-1][1] == start:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined


def _cut(linear: nn.Linear, ranges: list[tuple[int, int]], dim: int, pool: WeightPool) -> CutLinear:
    source = linear.weight.detach()
    shape = [*source.shape]
    shape[dim] = sum(end - start for start, end in ranges)
    weight = pool.take((shape[0], shape[1]), source.numel(), source)
    filled = 0
    for start, end in ranges:
        weight.narrow(dim, filled, end - start).copy_(source.narrow(dim, start, end - start))
        filled += end - start
    bias = linear.bias
    if bias is not None and dim == 0:
        bias = torch.cat([bias.detach()[start:end] for start, end in ranges])
    return CutLinear(weight, bias)


def cut_projections(layer: Any, plan: LayerPlan, num_switches: int, pool: WeightPool) -> dict[str, CutLinear]:
    """The projections that ``plan`` makes smaller, by name; none for a block that runs whole or not at all.

    A kept key-value group keeps its keys, its values and all its query heads.
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
    """The layer cut to ``plan``: same class, same forward, smaller matrices."""
    narrow = layer_view(layer, cuts)
    if not plan.heads:
        narrow._modules["self_attn"] = Nothing(returns_weights=True)
    if not plan.neuron_groups:
        narrow._modules["mlp"] = Nothing(returns_weights=False)
    return narrow


class NarrowCache:
    """Least-recently-used narrow layers, keyed by (layer, kept set), bounded in bytes; safe between threads.

    An entry made from weights that have changed since (a training step, a move to another device) is made anew.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._entries: OrderedDict[tuple[int, LayerPlan], tuple[tuple, Any, int]] = OrderedDict()
        self._bytes = 0
        self._pool = WeightPool()
        self._lock = threading.Lock()

    def get(self, index: int, layer: nn.Module, plan: LayerPlan, num_switches: int) -> Any:
        """The narrow layer for ``plan``, from the cache or cut now."""
        version = tuple((p.data_ptr(), p._version) for p in layer.parameters())
        key = (index, plan)
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None and entry[0] == version:
                self._entries.move_to_end(key)
                return entry[1]
        with self._lock:  # old plans go first, so that this one is cut into their memory
            while self._bytes + projection_bytes(layer) > self.max_bytes and self._entries:
                self._drop(next(iter(self._entries)))
        cuts = cut_projections(layer, plan, num_switches, self._pool)
        narrow = narrow_layer(layer, plan, cuts)
        with self._lock:
            self._drop(key)
            self._entries[key] = (version, narrow, projection_bytes(layer))
            self._bytes += self._entries[key][2]
        return narrow

    def clear(self) -> None:
        """Forget every narrow layer."""
        with self._lock:
            self._entries.clear()
            self._bytes = 0
        self._pool.clear()

    def _drop(self, key: tuple[int, LayerPlan]) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= entry[2]
