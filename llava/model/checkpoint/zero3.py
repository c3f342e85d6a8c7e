"""Weights that DeepSpeed's ZeRO-3 deals out among processes: each holds a part of every tensor, of shape (0,)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

from torch import nn


def is_zero3_sharded(parameter: Any) -> bool:
    """Whether only a part of it is here."""
    return hasattr(parameter, "ds_id")


def size(parameter: Any) -> int:
    """Its number of values, wherever they are."""
    return parameter.ds_numel if is_zero3_sharded(parameter) else parameter.numel()


def match_dtype(model: nn.Module) -> None:
    """Give weights that were added later the dtype of those that are dealt: ZeRO-3 takes one, and keeps float32 of what
    learns apart."""
    parameters: list[Any] = list(model.parameters())
    dtype = next((p.ds_tensor.dtype for p in parameters if is_zero3_sharded(p)), None)
    if dtype is None:
        return
    for parameter in parameters:
        if not is_zero3_sharded(parameter) and parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)


@contextlib.contextmanager
def gathered_parameters(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Inside, the parameters are there in full, on every process; the first one's changes are kept, on all."""
    dealt = [parameter for parameter in parameters if is_zero3_sharded(parameter)]
    if not dealt:
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(dealt, modifier_rank=0):
        yield
