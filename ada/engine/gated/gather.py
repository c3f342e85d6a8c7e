"""Gathers the weights that a plan keeps of a layer, joined, for a prefill on a GPU in ordinary products.

The gathered weights live as long as one layer of one prefill: memory that a layer frees is what the next one takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ada.engine.gated.shapes import DecoderShapes
from ada.execution.layer_weights import LayerWeights, Projection
from ada.scheduling.execution_plan import ExecutionPlan, group_bounds


@dataclass(frozen=True, eq=False)
class KeptChannels:
    """Where in its projections a layer's kept channels are: int32 indices on the device, ascending."""

    queries: torch.Tensor
    keys: torch.Tensor
    neurons: torch.Tensor

    @classmethod
    def of(cls, plan: ExecutionPlan, shapes: DecoderShapes, device: torch.device) -> list[KeptChannels]:
        """Return every layer's kept channels; one copy brings them to the device, and the host does not wait."""
        parts = []
        for layer in plan.layers:
            parts.append(_channels(layer.heads, shapes.heads * shapes.head_dim, plan.num_switches))
            parts.append(_channels(layer.heads, shapes.kv_heads * shapes.head_dim, plan.num_switches))
            parts.append(_channels(layer.neuron_groups, shapes.neurons, plan.num_switches))
        flat = torch.cat(parts)
        if device.type == "cuda":
            flat = flat.pin_memory()
        split = torch.split(flat.to(device, non_blocking=True), [len(part) for part in parts])
        return [cls(*split[start : start + 3]) for start in range(0, len(split), 3)]


def _channels(kept: Sequence[int], width: int, num_switches: int) -> torch.Tensor:
    bounds = group_bounds(width, num_switches)
    ranges = [torch.arange(*bounds[group], dtype=torch.int32) for group in kept]
    return torch.cat(ranges) if ranges else torch.empty(0, dtype=torch.int32)


@torch.no_grad()
def gather_layer(layer: Any, kept: KeptChannels) -> LayerWeights:
    """Copy what is kept of a layer's projections, in the dtype of its norms, whatever the weights are kept in.

    A kept key-value head keeps its query heads. What is off is not read.
    """
    attention, mlp, dtype = layer.self_attn, layer.mlp, layer.input_layernorm.weight.dtype
    qkv = output = gate_up = down = None
    if len(kept.keys):
        rows = ((attention.q_proj, kept.queries), (attention.k_proj, kept.keys), (attention.v_proj, kept.keys))
        qkv, output = _rows(rows, dtype), _columns(attention.o_proj, kept.queries, dtype)
    if len(kept.neurons):
        gate_up = _rows(((mlp.gate_proj, kept.neurons), (mlp.up_proj, kept.neurons)), dtype)
        down = _columns(mlp.down_proj, kept.neurons, dtype)
    return LayerWeights(qkv, output, gate_up, down)


def _rows(parts: Sequence[tuple[Any, torch.Tensor]], dtype: torch.dtype) -> Projection:
    """Join some rows of projections that read the same input."""
    first = parts[0][0].weight
    joined = first.new_empty(sum(len(index) for _, index in parts), first.shape[1])
    targets = joined.split([len(index) for _, index in parts])
    for (linear, index), target in zip(parts, targets, strict=True):
        torch.index_select(linear.weight, 0, index, out=target)
    scales = _joined([(getattr(linear, "scale", None), index) for linear, index in parts])
    return Projection(_floats(joined, scales, dtype), _joined([(linear.bias, index) for linear, index in parts]))


def _columns(linear: Any, index: torch.Tensor, dtype: torch.dtype) -> Projection:
    weight = linear.weight.index_select(1, index)
    return Projection(_floats(weight, getattr(linear, "scale", None), dtype), linear.bias)


def _joined(parts: Sequence[tuple[torch.Tensor | None, torch.Tensor]]) -> torch.Tensor | None:
    chosen = [values.index_select(0, index) for values, index in parts if values is not None]
    return torch.cat(chosen) if chosen else None


def _floats(weight: torch.Tensor, scales: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor:
    """What a weight (out, in), with scales (out,) of its rows where it has 8 bits, stands for."""
    return weight if scales is None else weight.to(dtype).mul_(scales[:, None])


class PromptWeights:
    """Gathers, for one prompt, the narrow weights of layer after layer; ``model``: as ``GatedStep`` takes it."""

    def __init__(self, model: Any) -> None:
        self._layers, self._shapes = model.model.layers, DecoderShapes.of(model.config)
        self._device = model.model.embed_tokens.weight.device
        self._kept: list[KeptChannels] | None = None

    def __call__(self, plan: ExecutionPlan, index: int) -> LayerWeights:
        """Return what ``plan``, the prompt's, keeps of layer ``index``."""
        if self._kept is None:
            self._kept = KeptChannels.of(plan, self._shapes, self._device)
        return gather_layer(self._layers[index], self._kept[index])
