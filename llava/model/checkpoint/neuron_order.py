"""Reorders the neurons of a decoder's MLPs, which changes nothing but which of them stand next to one another.

An adapter of which the folder holds ``neuron_order.safetensors`` was trained on its base model in that order.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from llava.errors import CheckpointError, OptionError
from llava.model.checkpoint.weights_io import read_weights
from llava.model.checkpoint.zero3 import gathered_parameters, is_zero3_sharded

ORDER_FILE = "neuron_order.safetensors"
NEURONS = "neurons"  # (layers, neurons): at each position the number of the base model's neuron


def read_order(path: Path) -> torch.Tensor:
    """Read an order (layers, neurons), int64. Raises CheckpointError for a file that holds none."""
    order = read_weights(path).get(NEURONS)
    if order is None or order.dim() != 2 or order.is_floating_point():
        found = "no such tensor" if order is None else f"{order.dtype} of shape {tuple(order.shape)}"
        raise CheckpointError(f"{path}: expected {NEURONS!r} (layers, neurons), integers; found {found}")
    order = order.long()
    if not torch.equal(order.sort(dim=1).values, torch.arange(order.shape[1]).expand_as(order)):
        raise CheckpointError(f"{path}: a layer of {NEURONS!r} lacks a neuron, or has one twice; measure it again")
    return order


def order_of(folder: Path) -> torch.Tensor | None:
    """Return the order that an adapter's folder holds; None where it has none."""
    path = folder / ORDER_FILE
    return read_order(path) if path.is_file() else None


def write_order(path: Path, order: torch.Tensor, **others: torch.Tensor) -> None:
    """Write an order, and what else is known of the neurons, under a name that is not final yet."""
    tensors = {name: tensor.contiguous() for name, tensor in {NEURONS: order.int(), **others}.items()}
    save_file(tensors, path, metadata={"format": "pt"})


def reorder_neurons(model: Any, order: torch.Tensor, source: str) -> None:
    """Give every MLP of the decoder the neurons' ``order`` (layers, neurons), in place; the model remembers it.

    New adapters, which add nothing yet, stay as they are. ``source``: where the order is from, for messages. Raises
    CheckpointError for an order of a decoder of another size, and OptionError for quantised weights.
    """
    layers = model.get_model().layers
    mlps = [[_linear(layer.mlp, name) for name in ("gate_proj", "up_proj", "down_proj")] for layer in layers]
    if order.shape[0] != len(mlps):
        raise CheckpointError(f"{source} is of {order.shape[0]} layers; the model has {len(mlps)}")
    for (gate, up, down), index in zip(mlps, order, strict=True):
        with gathered_parameters([*gate.parameters(), *up.parameters(), *down.parameters()]):
            _reorder(gate, index, 0, source)
            _reorder(up, index, 0, source)
            _reorder(down, index, 1, source)
    model.neuron_order = order


def base_order(model: Any) -> torch.Tensor | None:
    """Return the order that ``reorder_neurons`` gave the model; None where it has its base's."""
    order: torch.Tensor | None = getattr(model, "neuron_order", None)
    return order


def _linear(mlp: nn.Module, name: str) -> Any:
    module = getattr(mlp, name)
    return getattr(module, "base_layer", module)  # of a layer with an adapter


@torch.no_grad()
def _reorder(linear: Any, index: torch.Tensor, dim: int, source: str) -> None:
    weight = linear.weight
    if not weight.is_floating_point():
        raise OptionError(
            f"{source}: quantised weights cannot be reordered; leave the quantisation out, or merge the adapter with "
            "scripts/merge_lora_weights.py first"
        )
    if is_zero3_sharded(weight) and not weight.numel():
        return  # another process has what this one does not hold
    if weight.shape[dim] != len(index):
        raise CheckpointError(f"{source} is of {len(index)} neurons a layer; the model has {weight.shape[dim]}")
    index = index.to(weight.device)
    weight.copy_(weight.index_select(dim, index))
    if dim == 0 and linear.bias is not None:
        linear.bias.copy_(linear.bias[index])
