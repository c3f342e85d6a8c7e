"""Holds weights in 8 bits, quantised on load with a scale for each output channel, and multiplies with them.

A product of few positions reads the 8 bits themselves, which is what decoding waits for; of more, one block of the
weight after the other is turned into floats. Inputs are never quantised.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from llava.errors import CheckpointError, OptionError

LARGEST = 127
FEW_POSITIONS = 12  # torch's kernel for int8 weights takes longer than a dequantised product of more
ALIGNMENT = 16  # it reads rows in steps of 16 values, past the end of others: wrong values, or a crash
BLOCK = 1 << 20  # weights that are read at a time: what fits in a core's cache, and costs little memory


class Int8Linear(nn.Module):
    """Linear product with an int8 weight (out, in), a bfloat16 scale (out,), and a bias (out,) or None.

    The weight can neither be trained nor saved: a checkpoint has the weights that it was made from.
    """

    def __init__(self, weight: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.scale = nn.Parameter(scale, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)

    @property
    def in_features(self) -> int:
        """The width of what is multiplied."""
        return self.weight.shape[1]

    @property
    def out_features(self) -> int:
        """The width of the product."""
        return self.weight.shape[0]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Project ``x`` (..., in) to (..., out)."""
        return int8_product(x, self.weight, self.scale, self.bias)

    def extra_repr(self) -> str:
        """Return the sizes, as a linear layer shows them."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"

    def _save_to_state_dict(self, *_: Any) -> None:
        refuse_saving()


def int8_weights(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ``weight`` (out, in) rounded to int8 (out, in), and the scales (out,), bfloat16, of its rows.

    A value is off by no more than half its row's scale. Scales are rounded first, so that this adds no error.
    """
    rounded, scales = zip(*map(_rounded, torch.split(weight, _height(weight))), strict=True)
    return torch.cat(rounded), torch.cat(scales)


def _rounded(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    weight, smallest = weight.float(), torch.finfo(torch.bfloat16).tiny  # of a row of zeros
    scale = (weight.abs().amax(dim=1) / LARGEST).bfloat16().clamp(min=smallest)
    steps = (weight / scale[:, None].float()).round_().clamp_(-LARGEST, LARGEST)
    return steps.to(torch.int8), scale


def _height(weight: torch.Tensor) -> int:
    """The rows of a block."""
    return max(1, BLOCK // weight.shape[1])


def int8_product(
    x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """Multiply ``x`` (..., in) by an int8 weight (out, in) with the scales (out,) of its rows: (..., out), x's dtype.

    On a CPU up to ``FEW_POSITIONS`` are multiplied in bfloat16; a gradient flows to ``x``.
    """
    rows = x.reshape(-1, x.shape[-1])
    plain = weight.device.type == "cpu" and not (torch.is_grad_enabled() and x.requires_grad)
    if plain and len(rows) <= FEW_POSITIONS and weight.shape[1] % ALIGNMENT == 0:
        out = torch._weight_int8pack_mm(rows.bfloat16(), weight, scale.bfloat16()).to(x.dtype)
    elif plain and x.dtype != torch.float16:  # which cannot hold products before they are scaled
        out = _by_blocks(rows, weight).mul_(scale)
    else:
        out = functional.linear(rows, dequantised(weight, scale, x.dtype))
    return (out if bias is None else out + bias).view(*x.shape[:-1], len(weight))


def _by_blocks(rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Multiply by the rounded weight, before it is scaled, in blocks that share their memory."""
    blocks = torch.split(weight, _height(weight))
    memory = rows.new_empty(blocks[0].shape)
    return torch.cat([functional.linear(rows, memory[: len(one)].copy_(one)) for one in blocks], dim=1)


def dequantised(weight: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return what an int8 weight (out, in) with the scales (out,) of its rows stands for, (out, in)."""
    return weight.to(dtype).mul_(scale[:, None])


def quantise_int8(model: nn.Module, skip: Iterable[str] = ()) -> int:
    """Quantise the linear layers of ``model`` in place, and return how many there were.

    One after the other, so that a float weight is freed before the next is read. skip: how names of modules begin that
    stay as they are; so do adapters. Raises CheckpointError for weights that are not finite, and OptionError for those
    that are not in memory.
    """
    kept = tuple(skip)
    names = [name for name, module in model.named_modules() if type(module) is nn.Linear]
    names = [name for name in names if not name.startswith(kept) and ".lora_" not in name]
    for name in names:
        folder, _, last = name.rpartition(".")
        parent = model.get_submodule(folder)
        setattr(parent, last, _quantised(name, getattr(parent, last)))
    return len(names)


def _quantised(name: str, linear: nn.Linear) -> Int8Linear:
    if linear.weight.is_meta:
        raise OptionError(f"{name} is offloaded, and --load-8bit needs weights in memory; leave out the device map")
    weight, scale = int8_weights(linear.weight.detach())
    if not scale.isfinite().all():
        raise CheckpointError(f"{name}.weight holds values that are not finite; 8 bits cannot hold them. Copy it again")
    return Int8Linear(weight, scale, linear.bias).train(linear.training)


def is_int8(model: Any) -> bool:
    """Return whether a model has weights in 8 bits that were made on load."""
    return any(isinstance(module, Int8Linear) for module in model.modules())


def refuse_saving() -> None:
    """Raise the OptionError of who would save weights in 8 bits."""
    raise OptionError(
        "the weights are in 8 bits, rounded as they were loaded, and are not saved; to save the model, load it "
        "without load_8bit (--load-8bit)"
    )
