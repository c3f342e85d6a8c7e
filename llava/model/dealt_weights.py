"""Weights that DeepSpeed's ZeRO-3 deals out among processes: each holds a part of every tensor, of shape (0,)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

from torch import nn


def is_dealt(parameter: nn.Parameter) -> bool:
    """Whether only a part of it is here."""
    return hasattr(parameter, "ds_id")


def size(parameter: nn.Parameter) -> int:
    """Its number of values, wherever they are."""
    return parameter.ds_numel if is_dealt(parameter) else parameter.numel()  # type: ignore[return-value]


@contextlib.contextmanager
def whole(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Inside, the parameters are there in full, on every process; the first one's changes are kept, on all."""
    dealt = [parameter for parameter in parameters if is_dealt(parameter)]
    if not dealt:
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(dealt, modifier_rank=0):
        yield
