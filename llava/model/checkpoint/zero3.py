"""Handles weights that DeepSpeed's ZeRO-3 shards: each process holds a part of every tensor, of shape (0,)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

from torch import nn


def is_zero3_sharded(parameter: nn.Parameter) -> bool:
    """Return whether this process holds only a part of the parameter."""
    return hasattr(parameter, "ds_id")


def size(parameter: nn.Parameter) -> int:
    """Return a parameter's number of values over all processes."""
    return int(getattr(parameter, "ds_numel", parameter.numel()))


def match_dtype(model: nn.Module) -> None:
    """Give weights that were added later the dtype of the sharded ones.

    ZeRO-3 takes one dtype, and keeps a float32 copy of what learns by itself.
    """
    parameters: list[Any] = list(model.parameters())
    dtype = next((p.ds_tensor.dtype for p in parameters if is_zero3_sharded(p)), None)
    if dtype is None:
        return
    for parameter in parameters:
        if not is_zero3_sharded(parameter) and parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)


@contextlib.contextmanager
def gathered_parameters(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Gather sharded parameters inside the block, on every process; the first process's changes are kept."""
    sharded = [parameter for parameter in parameters if is_zero3_sharded(parameter)]
    if not sharded:
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(sharded, modifier_rank=0):
        yield
