"""Key-value caches of single rows -> one cache of a batch, and back.

Rows of different length stand at the right; what is in front of a shorter one is zeros, which the attention mask hides.
A row that ran a part of the model may lack heads or whole layers. The batch lacks them only where all rows agree, and
has zeros there for the rows that do without.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import DynamicCache

Heads = tuple[int, ...] | None
"""Key-value heads of one layer, ascending; None for all of them."""


@dataclass(frozen=True)
class DecodingBatch:
    """heads: what a cache holds of each layer; keywords: of ``model.forward``, for the batch's steps."""

    heads: Sequence[Heads]
    keywords: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RowCache:
    """One row: keys and values (heads, ``length``, head size) of each layer, None where it holds nothing."""

    layers: Sequence[tuple[torch.Tensor, torch.Tensor] | None]
    heads: Sequence[Heads]
    length: int


def take_row(cache: Any, row: int, length: int, held: Sequence[Heads], wanted: Sequence[Heads]) -> RowCache:
    """A row of a batch's cache, which holds the heads ``held``, cut to its last ``length`` positions and own heads."""
    layers: list[tuple[torch.Tensor, torch.Tensor] | None] = []
    for index, (has, wants) in enumerate(zip(held, wanted, strict=True)):
        if wants == ():
            layers.append(None)
            continue
        layer = cache.layers[index]
        heads = slice(None) if has == wants or wants is None else list(wants)
        keys, values = (states[row, heads, -length:] for states in (layer.keys, layer.values))
        layers.append((keys, values))
    return RowCache(layers, wanted, length)


def join_rows(rows: Sequence[RowCache], held: Sequence[Heads], num_heads: int) -> DynamicCache:
    """One cache of all rows, which holds the heads ``held``. Layer 0 always runs, and so tells sizes and dtype."""
    first = rows[0].layers[0]
    assert first is not None
    width = max(row.length for row in rows)
    cache = DynamicCache()
    for index, has in enumerate(held):
        if has == ():
            continue
        shape = (len(rows), num_heads if has is None else len(has), width, first[0].shape[-1])
        both = first[0].new_zeros(shape), first[1].new_zeros(shape)
        for place, row in enumerate(rows):
            states, own = row.layers[index], row.heads[index]
            if states is None:
                continue
            heads = slice(None) if own == has or own is None else list(own)
            for target, source in zip(both, states, strict=True):
                target[place, heads, width - row.length :] = source
        cache.update(*both, index)
    return cache
