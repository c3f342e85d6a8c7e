"""Makes decoder layers maskable: a subclass of each Llama-like layer class, installed by swapping ``__class__``.

A layer that gets no execution is the original layer, bit for bit. The swap keeps parameters, state-dict keys, hooks
and gradient checkpointing, and can be undone.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from ada.execution.call_state import RUN_DENSE, Execution, LayerAction
from ada.execution.module_view import with_projections


class GatedLinear(nn.Module):
    """Projection whose input channels are scaled by gates, one gate for each head or neuron group."""

    def __init__(self, linear: Any, gates: torch.Tensor) -> None:
        super().__init__()
        self.linear, self.gates = linear, gates  # gates (B, A)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Project ``x`` (B, T, C) with its channels scaled."""
        out: torch.Tensor = self.linear(x * channel_gates(self.gates.to(x), x.shape[-1])[:, None])
        bias: torch.Tensor | None = self.linear.bias
        if bias is None:
            return out
        # A block of which nothing runs adds nothing: its bias goes too, as when the layer is skipped.
        empty = (self.gates.detach() == 0).all(dim=1, keepdim=True)
        return out - (bias * empty.to(x))[:, None]


def channel_gates(gates: torch.Tensor, num_channels: int) -> torch.Tensor:
    """Repeat gates (B, A) over the channels (B, C) of their groups, which are those of ``group_bounds``.

    Sizes are the host's: a tensor of them would be copied to the device, and waited for, in every layer of a step.
    """
    size, longer = divmod(num_channels, gates.shape[1])
    first = gates[:, :longer, None].expand(-1, -1, size + 1)
    others = gates[:, longer:, None].expand(-1, -1, size)
    return torch.cat([first.flatten(1), others.flatten(1)], dim=1)


class MaskableLayer(nn.Module):
    """Extends a decoder layer class that follows it among the bases; ``maskable`` makes the combination."""

    def __call__(
        self, hidden_states: torch.Tensor, *args: Any, execution: Execution | None = None, **kwargs: Any
    ) -> torch.Tensor:
        """Ask ``execution`` what of the layer runs on ``hidden_states`` (B, T, D), and run it.

        This is outside gradient checkpointing: the recomputed forward must see the gates that the first one saw.
        """
        action = RUN_DENSE if execution is None else execution.action(self, hidden_states)
        if execution is not None and execution.watch is not None:
            execution.watch.see(self, hidden_states, kwargs, action.gates)

        def run(hidden: torch.Tensor, **keywords: Any) -> torch.Tensor:
            # Gates go by position: reentrant checkpointing only carries gradients to positional tensors.
            out: torch.Tensor = super(MaskableLayer, self).__call__(
                hidden, action.gates, *args, action=action, **keywords
            )
            return out

        if execution is None or execution.late_tokens is None:
            return run(hidden_states, **kwargs)
        return execution.late_tokens.run(self, run, hidden_states, kwargs)

    def forward(
        self,
        hidden_states: torch.Tensor,
        gates: torch.Tensor | None = None,
        *args: Any,
        action: LayerAction = RUN_DENSE,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Run the layer as ``action`` says; ``gates`` (B, 2, A) are its tensor, passed separately."""
        if action.skip:
            return hidden_states
        layer: Any = action.module(self)
        if gates is not None:
            heads, groups = gates.unbind(1)
            o_proj, down_proj = GatedLinear(layer.self_attn.o_proj, heads), GatedLinear(layer.mlp.down_proj, groups)
            layer = with_projections(layer, {"o_proj": o_proj, "down_proj": down_proj})
        out: torch.Tensor = super(MaskableLayer, layer).forward(hidden_states, *args, **kwargs)
        return out


@functools.cache
def maskable(layer_class: type[nn.Module]) -> type[nn.Module]:
    """Return the maskable subclass of a Llama-like decoder layer class, whose projections have Llama's names.

    It has that class's name, by which transformers and accelerate know what a device map must not split.
    """
    return type(layer_class.__name__, (MaskableLayer, layer_class), {"__module__": __name__})


def install(layers: Iterable[Any]) -> None:
    """Make the layers maskable in place; layers that already are stay as they are."""
    for layer in layers:
        if not isinstance(layer, MaskableLayer):
            kind: Any = type(layer)
            _swap(layer, maskable(kind))


def uninstall(layers: Iterable[Any]) -> None:
    """Undo ``install``: give the layers their original class."""
    for layer in layers:
        if isinstance(layer, MaskableLayer):
            _swap(layer, type(layer).__mro__[2])


def _swap(layer: Any, new: Any) -> None:
    """Give a layer another class, and the bound forwards that accelerate's hooks keep on it that class's forward."""
    old = type(layer)
    layer.__class__ = new
    for name in ("forward", "_old_forward"):
        if getattr(vars(layer).get(name), "__func__", None) is old.forward:
            setattr(layer, name, new.forward.__get__(layer))
