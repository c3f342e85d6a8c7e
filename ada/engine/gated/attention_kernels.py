"""Attends to the key-value slots: each row to the columns that its slot holds, with the heads that it has on.

A head's columns may be split among several programs, so that few heads fill a GPU; a second kernel joins their shares.
"""

from __future__ import annotations

from ada.engine.gated.tiles import product
from ada.engine.gated.triton_language import Pointer, Tile, kernel, tl

NOTHING = tl.constexpr(-1e30)  # a score that no column has: minus infinity, without its undefined differences


@kernel
def scored(query: Tile, keys: Tile, heads: tl.constexpr, columns: tl.constexpr) -> Tile:
    """Return query (h, d) times keys (c, d): (h, c), float32; by tensor cores for 16 heads, padding included."""
    if heads >= 16:
        score = product(query, tl.trans(keys), tl.zeros([heads, columns], tl.float32))
    else:
        score = tl.sum(query.to(tl.float32)[:, None, :] * keys.to(tl.float32)[None, :, :], axis=2)
    return score


@kernel
def weighted(weights: Tile, values: Tile, total: Tile, heads: tl.constexpr) -> Tile:
    """Return ``total`` (h, d) plus weights (h, c) times values (c, d)."""
    if heads >= 16:
        total = product(weights, values, total)
    else:
        total += tl.sum(weights[:, :, None] * values.to(tl.float32)[None, :, :], axis=1)
    return total


@kernel
def attend_kernel(
    queries: Pointer, keys: Pointer, values: Pointer, attended: Pointer,
    sums: Pointer, tops: Pointer, norms: Pointer, heads: Pointer, kept_at: Pointer, lengths: Pointer,
    capacity: int, scaling: tl.constexpr, head_dim: tl.constexpr, dim_padded: tl.constexpr, shared: tl.constexpr,
    shared_padded: tl.constexpr, kv_heads: tl.constexpr, splits: tl.constexpr,
    block: tl.constexpr, stages: tl.constexpr,
) -> None:  # fmt: skip
    """Attend with the query heads of one key-value head of one row to one of ``splits`` shares of its columns.

    Program (i, r, s): the i-th head that any row has on, row r, share s. A head that is off for the row gives zeros.
    With one share attended (R, H, d) is written; with more, weighted sums (R, H, splits, d) and, (R, H, splits) each,
    the highest scores and the sums of weights.
    """
    row, split = tl.program_id(1), tl.program_id(2)
    if tl.program_id(0) >= tl.load(heads):
        return
    head = tl.load(heads + 1 + tl.program_id(0))
    index = tl.load(kept_at + row * kv_heads + head)
    own, channels = tl.arange(0, shared_padded), tl.arange(0, dim_padded)
    query_heads = row * (kv_heads * shared) + head * shared + own
    inside = (own < shared)[:, None] & (channels < head_dim)[None, :]
    length = tl.minimum(tl.load(lengths + row) + 1, capacity)
    share = tl.cdiv(tl.cdiv(length, splits), block) * block
    begin = split * share
    end = tl.where(index >= 0, tl.minimum(begin + share, length), begin)
    query = tl.load(queries + query_heads[:, None] * head_dim + channels[None, :], mask=inside, other=0.0)
    start = (row * kv_heads + index).to(tl.int64) * (capacity * head_dim)
    total = tl.zeros([shared_padded, dim_padded], tl.float32)
    top = tl.full([shared_padded], NOTHING, tl.float32)
    norm = tl.zeros([shared_padded], tl.float32)
    for column in tl.range(begin, end, block, num_stages=stages):
        columns = column + tl.arange(0, block)
        known = (columns < end)[:, None] & (channels < head_dim)[None, :]
        at = start + columns[:, None] * head_dim + channels[None, :]
        key = tl.load(keys + at, mask=known, other=0.0)
        value = tl.load(values + at, mask=known, other=0.0)
        score = scored(query, key, shared_padded, block) * scaling
        score = tl.where((columns < end)[None, :], score, NOTHING)
        new_top = tl.maximum(top, tl.max(score, axis=1))
        weights = tl.exp(score - new_top[:, None])
        fade = tl.exp(top - new_top)
        norm = norm * fade + tl.sum(weights, axis=1)
        total = weighted(weights, value, total * fade[:, None], shared_padded)
        top = new_top
    if splits == 1:
        out = total / tl.maximum(norm, 1e-30)[:, None]
        at = attended + query_heads[:, None] * head_dim + channels[None, :]
        tl.store(at, out.to(attended.dtype.element_ty), mask=inside)
    else:
        part = query_heads * splits + split
        tl.store(sums + part[:, None] * head_dim + channels[None, :], total, mask=inside)
        tl.store(tops + part, top, mask=own < shared)
        tl.store(norms + part, norm, mask=own < shared)


@kernel
def join_kernel(
    sums: Pointer, tops: Pointer, norms: Pointer, attended: Pointer, heads: Pointer, head_dim: tl.constexpr,
    dim_padded: tl.constexpr, shared: tl.constexpr, kv_heads: tl.constexpr, splits: tl.constexpr,
    splits_padded: tl.constexpr,
) -> None:  # fmt: skip
    """Join the shares of one query head of one row: attended (R, H, d). Program (i, r): i-th query head that is on."""
    number, row = tl.program_id(0), tl.program_id(1)
    if number >= tl.load(heads) * shared:
        return
    head = row * (kv_heads * shared) + tl.load(heads + 1 + number // shared) * shared + number % shared
    split, channels = tl.arange(0, splits_padded), tl.arange(0, dim_padded)
    top = tl.load(tops + head * splits + split, mask=split < splits, other=NOTHING)
    norm = tl.load(norms + head * splits + split, mask=split < splits, other=0.0)
    weights = tl.where(norm > 0, tl.exp(top - tl.max(top, axis=0)), 0.0)
    inside = (split < splits)[:, None] & (channels < head_dim)[None, :]
    shares = tl.load(sums + (head * splits + split)[:, None] * head_dim + channels[None, :], mask=inside, other=0.0)
    out = tl.sum(shares * weights[:, None], axis=0) / tl.maximum(tl.sum(norm * weights, axis=0), 1e-30)
    tl.store(attended + head * head_dim + channels, out.to(attended.dtype.element_ty), mask=channels < head_dim)
