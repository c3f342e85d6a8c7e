"""A module seen with some of its children replaced: the one mechanism behind masked and narrow layers."""

from __future__ import annotations

from typing import Any, TypeVar

from torch import nn

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def view(module: ModuleT, **children: Any) -> ModuleT:
    """A twin of ``module`` that shares everything with it but the named children.

    Making one costs microseconds and changes nothing on the original, so each call, thread and plan has its own;
    the class's own forward (eager, SDPA or flash attention) runs unchanged on it.
    """
    twin = object.__new__(type(module))
    twin.__dict__ = {**module.__dict__, "_modules": {**module._modules, **children}}
    return twin


def layer_view(layer: ModuleT, projections: dict[str, Any]) -> ModuleT:
    """A twin of a decoder layer with some of ``q_proj`` ... ``down_proj`` replaced."""
    attention = {n: p for n, p in projections.items() if n in layer.self_attn._modules}
    mlp = {n: p for n, p in projections.items() if n in layer.mlp._modules}
    children = {}
    if attention:
        children["self_attn"] = view(layer.self_attn, **attention)  # type: ignore[type-var]
    if mlp:
        children["mlp"] = view(layer.mlp, **mlp)  # type: ignore[type-var]
    return view(layer, **children)
