"""Projects the residual stream to queries, keys and values of the heads that any row has on, and rotates them.

A key-value head comes with its query heads. A tile is a block of channels of the first half of one head's queries, keys
or values, with their counterparts in the second half, which the rotation mixes.
"""

from __future__ import annotations

from ada.engine.gated.tiles import add_product, finished, normed, row_scales, zero_sum
from ada.engine.gated.triton_language import Pointer, Tile, kernel, tl


@kernel
def half_heads(x: Pointer, norm: Pointer, scales: Tile, rows: Tile, live: Tile, weight: Pointer, weight_scales: Pointer,
               bias: Pointer, head: Tile, channels: Tile, width: tl.constexpr, head_dim: tl.constexpr,
               block: tl.constexpr, rows_padded: tl.constexpr, depth: tl.constexpr, many: tl.constexpr,
               stages: tl.constexpr) -> Tile:  # fmt: skip
    """Return channels of a head's first half, and those of its second half: (n, r) each, float32."""
    half: tl.constexpr = head_dim // 2
    inside = channels < half
    first = head * head_dim + channels
    start = weight + first.to(tl.int64)[:, None] * width
    low = zero_sum(block, rows_padded, depth, many)
    high = zero_sum(block, rows_padded, depth, many)
    for column in tl.range(0, width, depth, num_stages=stages):
        columns = column + tl.arange(0, depth)
        known = inside[:, None] & (columns < width)[None, :]
        low_weights = tl.load(start + columns[None, :], mask=known, other=0)
        high_weights = tl.load(start + half * width + columns[None, :], mask=known, other=0)
        values = normed(x, norm, scales, rows, live, columns, width, many)
        low = add_product(low, low_weights, values, many)
        high = add_product(high, high_weights, values, many)
    low = finished(low, weight_scales, bias, first, inside, many)
    high = finished(high, weight_scales, bias, first + half, inside, many)
    return low, high


@kernel
def rotated(low: Tile, high: Tile, cosines: Pointer, sines: Pointer, positions: Pointer, rows: Tile, live: Tile,
            channels: Tile, half: tl.constexpr) -> Tile:  # fmt: skip
    """Return both halves (n, r) rotated to the rows' positions; cosines, sines: (positions, half), float32."""
    position = tl.load(positions + rows, mask=live, other=0).to(tl.int64)
    known = (channels < half)[:, None] & live[None, :]
    at = position[None, :] * half + channels[:, None]
    cosine = tl.load(cosines + at, mask=known, other=0.0)
    sine = tl.load(sines + at, mask=known, other=0.0)
    return low * cosine - high * sine, high * cosine + low * sine


@kernel
def store_halves(target: Pointer, at: Tile, low: Tile, high: Tile, known: Tile, half: tl.constexpr) -> None:
    """Write both halves (n, r) of a head where its channels ``at`` (n, r) are."""
    tl.store(target + at, low.to(target.dtype.element_ty), mask=known)
    tl.store(target + at + half, high.to(target.dtype.element_ty), mask=known)


@kernel
def qkv_kernel(
    x: Pointer, squares: Pointer, norm: Pointer,
    query: Pointer, query_scales: Pointer, query_bias: Pointer,
    key: Pointer, key_scales: Pointer, key_bias: Pointer,
    value: Pointer, value_scales: Pointer, value_bias: Pointer,
    cosines: Pointer, sines: Pointer, queries: Pointer, keys: Pointer, values: Pointer,
    heads: Pointer, kept_at: Pointer, lengths: Pointer, positions: Pointer,
    capacity: int,
    eps: tl.constexpr, width: tl.constexpr, head_dim: tl.constexpr, shared: tl.constexpr, kv_heads: tl.constexpr,
    parts: tl.constexpr, parts_padded: tl.constexpr, stride: tl.constexpr,
    num_rows: tl.constexpr, rows_padded: tl.constexpr, block: tl.constexpr, depth: tl.constexpr, many: tl.constexpr,
    stages: tl.constexpr,
) -> None:  # fmt: skip
    """Write queries (R, H, d), and each row's key and value at the next column of its slot, at the head's index there.

    heads: how many key-value heads any row has on, then which; kept_at: (R, A), a head's index in the row's slot, -1
    where it is off; lengths: filled columns of each slot; shared: query heads of a key-value head.
    """
    half: tl.constexpr = head_dim // 2
    blocks: tl.constexpr = (half + block - 1) // block
    per_head: tl.constexpr = (shared + 2) * blocks
    rows = tl.arange(0, rows_padded)
    live = rows < num_rows
    tiles = tl.load(heads) * per_head
    for tile in range(tl.program_id(0), tiles, tl.num_programs(0)):
        scales = row_scales(squares, rows, live, eps, width, parts, parts_padded, stride)
        head = tl.load(heads + 1 + tile // per_head)
        part = (tile % per_head) // blocks  # the query heads, then the key, then the value
        channels = (tile % blocks) * block + tl.arange(0, block)
        known = (channels < half)[:, None] & live[None, :]
        if part < shared:
            query_head = head * shared + part
            low, high = half_heads(x, norm, scales, rows, live, query, query_scales, query_bias, query_head, channels,
                                   width, head_dim, block, rows_padded, depth, many, stages)  # fmt: skip
            low, high = rotated(low, high, cosines, sines, positions, rows, live, channels, half)
            query_at = (rows * (kv_heads * shared) + query_head)[None, :] * head_dim + channels[:, None]
            store_halves(queries, query_at, low, high, known, half)
        else:
            index = tl.load(kept_at + rows * kv_heads + head, mask=live, other=-1)
            column = tl.load(lengths + rows, mask=live, other=capacity)
            known = known & ((index >= 0) & (column < capacity))[None, :]
            slot = ((rows * kv_heads + index).to(tl.int64) * capacity + column) * head_dim
            slot_at = slot[None, :] + channels[:, None]
            if part == shared:
                low, high = half_heads(x, norm, scales, rows, live, key, key_scales, key_bias, head, channels,
                                       width, head_dim, block, rows_padded, depth, many, stages)  # fmt: skip
                low, high = rotated(low, high, cosines, sines, positions, rows, live, channels, half)
                store_halves(keys, slot_at, low, high, known, half)
            else:
                low, high = half_heads(x, norm, scales, rows, live, value, value_scales, value_bias, head, channels,
                                       width, head_dim, block, rows_padded, depth, many, stages)  # fmt: skip
                store_halves(values, slot_at, low, high, known, half)
