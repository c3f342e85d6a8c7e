"""KV caches of single sequences joined into one batch's cache, and split again.

Rows of different length are aligned at the right; the positions before a shorter one hold zeros, which the attention
mask hides. A row that ran a part of the model may lack heads or layers. The batch's cache lacks them only where all
rows agree, and holds zeros there for the rows that do without.
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
    """How several sequences decode as one batch.

    heads: key-value heads that the batch's cache holds, for each layer. forward_kwargs: keyword arguments of
    ``model.forward`` for the batch's steps. position_gaps: for each row, by how much the position of its next token is
    above the number of positions in its cache, where parts of its prompt were left out; None where no row has a gap.
    """

    heads: Sequence[Heads]
    forward_kwargs: Mapping[str, Any] = field(default_factory=dict)
    position_gaps: Sequence[int] | None = None


@dataclass(frozen=True)
class RowCache:
    """The KV cache of one row.

    layers: keys and values (heads, ``length``, head size) of each layer, None where the row holds nothing.
    """

    layers: Sequence[tuple[torch.Tensor, torch.Tensor] | None]
    heads: Sequence[Heads]
    length: int


def take_row(cache: DynamicCache, row: int, length: int, held: Sequence[Heads], wanted: Sequence[Heads]) -> RowCache:
    """Cut row ``row`` out of a batch's cache: its last ``length`` positions and the heads ``wanted``.

    held: heads that the batch's cache holds. Both ``held`` and ``wanted`` have one entry for each layer.
    """
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
    """Join rows into one cache, whose layers hold the heads ``held``.

    num_heads: key-value heads of a dense layer. A layer's cache is on the device where its rows are. One that no row
    holds is made as the layer before it; layer 0 always runs.
    """
    like = rows[0].layers[0]
    assert like is not None
    width = max(row.length for row in rows)
    cache = DynamicCache()
    for layer_index, has in enumerate(held):
        if has == ():
            continue
        like = next((states for row in rows if (states := row.layers[layer_index]) is not None), like)
        shape = (len(rows), num_heads if has is None else len(has), width, like[0].shape[-1])
        joined = like[0].new_zeros(shape), like[1].new_zeros(shape)
        for row_index, row in enumerate(rows):
            states, own = row.layers[layer_index], row.heads[layer_index]
            if states is None:
                continue
            heads = slice(None) if own == has or own is None else list(own)
            for target, source in zip(joined, states, strict=True):
                target[row_index, heads, width - row.length :] = source
        cache.update(*joined, layer_index)
    return cache
