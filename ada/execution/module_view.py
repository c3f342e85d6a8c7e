"""Copies a module shallowly with some children replaced: the one mechanism that masked and narrow layers share."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import TypeVar

from torch import nn

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def shallow_copy_with(module: ModuleT, **children: nn.Module) -> ModuleT:
    """Return a copy of ``module`` that shares everything with it but the named children.

    Making one costs microseconds and changes nothing on the original, so each call, thread and plan has its own;
    the class's own forward (eager, SDPA or flash attention) runs unchanged on it. A forward set on the instance, as
    accelerate sets one to move tensors between devices, is bound to the original and its children: it is left out. So
    are hooks under ZeRO-3 (DeepSpeed marks its modules with ``ds_id``), which count on the original's being called; the
    projections, which hold the weights, keep theirs.
    """
    copied = object.__new__(type(module))
    own = {name: value for name, value in module.__dict__.items() if name != "forward"}
    if "ds_id" in own:
        own |= {"_forward_pre_hooks": OrderedDict(), "_forward_hooks": OrderedDict()}
    copied.__dict__ = {**own, "_modules": {**module._modules, **children}}
    return copied


def with_projections(layer: ModuleT, projections: Mapping[str, nn.Module]) -> ModuleT:
    """Return a shallow copy of a decoder layer with some of ``q_proj`` ... ``down_proj`` replaced, by name."""
    children: dict[str, nn.Module] = {}
    for block in ("self_attn", "mlp"):
        part = layer._modules[block]
        assert part is not None  # a decoder layer has both
        replaced = {name: p for name, p in projections.items() if name in part._modules}
        if replaced:
            children[block] = shallow_copy_with(part, **replaced)
    return shallow_copy_with(layer, **children)
