"""Joins a decoder layer's seven projections into four products, dense or cut to what a plan keeps.

q, k and v read the same input, and so do gate and up: one product each saves a call, and a plan's rows are cut from one
matrix. Joining takes no memory: the projections' own weights become parts of the joint matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ada.execution.linear import linear
from ada.scheduling.execution_plan import LayerPlan, group_bounds
from llava.errors import OptionError
from llava.model.int8_linear import ALIGNMENT, Int8Linear, int8_product

ATTENTION_ROWS, ATTENTION_COLUMNS = ("q_proj", "k_proj", "v_proj"), ("o_proj",)
MLP_ROWS, MLP_COLUMNS = ("gate_proj", "up_proj"), ("down_proj",)
ATTENTION, MLP = ATTENTION_ROWS + ATTENTION_COLUMNS, MLP_ROWS + MLP_COLUMNS

Take = Callable[[tuple[int, int], int, torch.Tensor], torch.Tensor]
"""Memory for a cut weight: its shape, the elements of the weight that it is cut from, and that weight."""

Range = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Projection:
    """A linear product: weight (out, in), bias (out,) or None; scale (out,) of an int8 weight's rows."""

    weight: torch.Tensor
    bias: torch.Tensor | None = None
    scale: torch.Tensor | None = None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Project ``x`` (..., in) to (..., out)."""
        if self.scale is not None:
            return int8_product(x, self.weight, self.scale, self.bias)
        return linear(x, self.weight, self.bias)

    def rows(self, start: int, end: int) -> Projection:
        """Return the product of some rows alone, in the same memory."""
        bias, scale = (None if part is None else part[start:end] for part in (self.bias, self.scale))
        return Projection(self.weight[start:end], bias, scale)


@dataclass(frozen=True, eq=False)
class LayerWeights:
    """What runs of one decoder layer; None for a product of a block of which nothing runs.

    qkv: rows of the query heads, then those of the key heads, then those of the value heads; output: the attention's;
    gate_up: rows of gate_proj, then those of up_proj; down: the MLP's output.
    """

    qkv: Projection | None
    output: Projection | None
    gate_up: Projection | None
    down: Projection | None


def can_cut(layer: nn.Module) -> bool:
    """Return whether all projections are plain float matrices in memory, or all are 8-bit ones made on load.

    Those that bitsandbytes quantised, adapted (LoRA) or offloaded ones cannot be cut; the layer is masked instead.
    """
    parts = projections(layer)
    kinds = set(map(type, parts))
    if kinds == {nn.Linear}:
        return all(weight.is_floating_point() and not weight.is_meta for weight in (p.weight for p in parts))
    return kinds == {Int8Linear}


def projections(layer: Any) -> list[Any]:
    """Return the seven projections of a decoder layer: q, k, v, o, gate, up, down."""
    attention, mlp = layer.self_attn._modules, layer.mlp._modules
    return [*map(attention.__getitem__, ATTENTION), *map(mlp.__getitem__, MLP)]


def projection_bytes(layer: Any) -> int:
    """Return the bytes of the seven projections: the maximum that a narrow layer can take."""
    return sum(p.weight.nbytes for p in projections(layer))


def joined(layer: Any) -> LayerWeights:
    """Join a layer's projections; what is joined already stays where it is."""
    q, k, v, output, gate, up, down = projections(layer)
    return LayerWeights(_join([q, k, v]), _as_it_is(output), _join([gate, up]), _as_it_is(down))


def copied(layer: Any) -> LayerWeights:
    """Join copies of a layer's projections, as differentiable functions of them. Raises OptionError for 8-bit ones."""
    if any(isinstance(p, Int8Linear) for p in projections(layer)):
        raise OptionError("8-bit weights are not trained; load the model without load_8bit (--load-8bit)")
    q, k, v, output, gate, up, down = projections(layer)
    return LayerWeights(
        _concatenated([q, k, v]),
        Projection(output.weight, output.bias),
        _concatenated([gate, up]),
        Projection(down.weight, down.bias),
    )


def _as_it_is(linear: Any) -> Projection:
    bias = None if linear.bias is None else linear.bias.detach()
    return Projection(linear.weight.detach(), bias, linear.scale.detach() if isinstance(linear, Int8Linear) else None)


def _concatenated(linears: Sequence[Any]) -> Projection:
    bias = None if linears[0].bias is None else torch.cat([linear.bias for linear in linears])
    return Projection(torch.cat([linear.weight for linear in linears]), bias)


def _join(linears: Sequence[Any]) -> Projection:
    """One product in place of several of the same input; their parameters become parts of its weight."""
    weights = [linear.weight.detach() for linear in linears]
    bias = None if linears[0].bias is None else torch.cat([linear.bias.detach() for linear in linears])
    scale = torch.cat([p.scale.detach() for p in linears]) if isinstance(linears[0], Int8Linear) else None
    if _adjoin(weights):
        rows = sum(map(len, weights))
        return Projection(weights[0].as_strided((rows, weights[0].shape[1]), weights[0].stride()), bias, scale)
    joint = torch.cat(weights)
    for module, part in zip(linears, torch.split(joint, [*map(len, weights)]), strict=True):
        module.weight.data = part
    return Projection(joint, bias, scale)


def _adjoin(weights: Sequence[torch.Tensor]) -> bool:
    """Whether each weight begins where the one before it ends, in one block of memory."""
    storage, ends = weights[0].untyped_storage().data_ptr(), weights[0].data_ptr()
    for weight in weights:
        if weight.untyped_storage().data_ptr() != storage or weight.data_ptr() != ends or not weight.is_contiguous():
            return False
        ends += weight.nbytes
    return True


def cut(weights: LayerWeights, plan: LayerPlan, num_switches: int, take: Take | None) -> LayerWeights:
    """Return the weights of what a plan keeps; a block that runs dense is shared with ``weights``.

    A kept key-value group keeps its keys, its values and all its query heads. Without ``take`` the cut weights are
    differentiable functions of the dense ones.
    """
    assert weights.qkv and weights.output and weights.gate_up and weights.down
    queries, neurons = weights.output.weight.shape[1], weights.down.weight.shape[1]
    keys = (len(weights.qkv.weight) - queries) // 2
    # Neurons of zeros add nothing, and let the kernel for int8 weights read what is left of any number of groups.
    multiple = 1 if weights.down.scale is None else ALIGNMENT
    return LayerWeights(
        *_cut_block(weights.qkv, weights.output, [queries, keys, keys], plan.heads, num_switches, take),
        *_cut_block(
            weights.gate_up, weights.down, [neurons, neurons], plan.neuron_groups, num_switches, take, multiple
        ),
    )


def _cut_block(
    into: Projection,
    out: Projection,
    parts: Sequence[int],
    kept: Sequence[int],
    num_switches: int,
    take: Take | None,
    multiple: int = 1,
) -> tuple[Projection | None, Projection | None]:
    """One block's products for its kept groups. parts: rows of what ``into`` joins; ``out`` reads the first's.

    multiple: what each part is padded to, with rows of zeros.
    """
    if not kept:
        return None, None
    if len(kept) == num_switches:
        return into, out
    columns = runs(group_bounds(parts[0], num_switches), kept)
    missing = -sum(end - start for start, end in columns) % multiple
    padding = [(-missing, 0)] if missing else []
    ranges, start = [], 0
    for width in parts:
        ranges += [(start + first, start + last) for first, last in runs(group_bounds(width, num_switches), kept)]
        ranges += padding
        start += width
    bias, scale = (None if part is None else _cut(part, ranges, 0) for part in (into.bias, into.scale))
    return Projection(_cut(into.weight, ranges, 0, take), bias, scale), Projection(
        _cut(out.weight, columns + padding, 1, take), out.bias, out.scale
    )


def runs(bounds: Sequence[Range], kept: Iterable[int]) -> list[Range]:
    """Return kept groups as ranges [start, end), neighbours joined: fewer and longer copies."""
    merged: list[Range] = []
    for group in kept:
        start, end = bounds[group]
        if merged and merged[-1][1] == start:
            merged[-1] = (merged[-1][0], end)
        else:
            merged.append((start, end))
    return merged


def _cut(source: torch.Tensor, ranges: Sequence[Range], dim: int, take: Take | None = None) -> torch.Tensor:
    parts = [_part(source, dim, start, end) for start, end in ranges]
    if take is None:
        return torch.cat(parts, dim=dim)
    shape = [*source.shape]
    shape[dim] = sum(part.shape[dim] for part in parts)
    weight = take((shape[0], shape[1]), max(source.numel(), shape[0] * shape[1]), source)
    filled = 0
    for part in parts:
        weight.narrow(dim, filled, part.shape[dim]).copy_(part)
        filled += part.shape[dim]
    return weight


def _part(source: torch.Tensor, dim: int, start: int, end: int) -> torch.Tensor:
    """A range of ``source``; below 0, as many zeros."""
    if start >= 0:
        return source.narrow(dim, start, end - start)
    shape = [*source.shape]
    shape[dim] = end - start
    return source.new_zeros(shape)
