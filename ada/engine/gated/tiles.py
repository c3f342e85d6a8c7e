"""Holds what the kernels share: normalised inputs, weight tiles, products that add up.

A product runs in one of two ways. For several rows (``many``) tensor cores multiply a tile of weights (n, k) by the
rows (r, k), and the sum has the shape (n, r). For one row the sum keeps the weights' shape (n, k), and is added up
along k at the end: no thread waits for another within the loop.
"""

from __future__ import annotations

from ada.engine.gated.triton_language import INTERPRETED, Pointer, Tile, kernel, tl


@kernel
def row_scales(squares: Pointer, rows: Tile, live: Tile, eps: float, width: tl.constexpr, parts: tl.constexpr,
               parts_padded: tl.constexpr, stride: tl.constexpr) -> Tile:  # fmt: skip
    """Return RMSNorm's factor of each row (r,), from its partial sums of squares (parts, stride)."""
    part = tl.arange(0, parts_padded)
    known = (part < parts)[:, None] & live[None, :]
    total = tl.sum(tl.load(squares + part[:, None] * stride + rows[None, :], mask=known, other=0.0), axis=0)
    return tl.rsqrt(total / width + eps)


@kernel
def normed(x: Pointer, norm: Pointer, scales: Tile, rows: Tile, live: Tile, columns: Tile, width: tl.constexpr,
           many: tl.constexpr) -> Tile:  # fmt: skip
    """Return some columns of the normalised rows (r, k): in their own type for tensor cores, else in float32."""
    inside = columns < width
    values = tl.load(x + rows[:, None] * width + columns[None, :], mask=live[:, None] & inside[None, :], other=0.0)
    values = values.to(tl.float32) * scales[:, None]
    values = values * tl.load(norm + columns, mask=inside, other=0.0).to(tl.float32)[None, :]
    if many:
        values = values.to(x.dtype.element_ty)
    return values


@kernel
def zero_sum(channels: tl.constexpr, rows: tl.constexpr, depth: tl.constexpr, many: tl.constexpr) -> Tile:
    """Return the sum that a product of ``channels`` starts from."""
    if many:
        total = tl.zeros([channels, rows], tl.float32)
    else:
        total = tl.zeros([channels, depth], tl.float32)
    return total


@kernel
def product(a: Tile, b: Tile, total: Tile) -> Tile:
    """Return ``total`` (n, r) plus a (n, k) times b (k, r), in float32. First a becomes b's type."""
    if INTERPRETED:
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    else:
        a = a.to(b.dtype)
    return tl.dot(a, b, total, input_precision="ieee")


@kernel
def add_product(total: Tile, weights: Tile, x: Tile, many: tl.constexpr) -> Tile:
    """Return ``total`` plus the product of weights (n, k) and x (r, k). 8-bit weights become x's type, exactly."""
    if many:
        total = product(weights, tl.trans(x), total)
    else:
        total += weights.to(tl.float32) * x.to(tl.float32)
    return total


@kernel
def finished(total: Tile, scales: Pointer, bias: Pointer, channels: Tile, inside: Tile, many: tl.constexpr) -> Tile:
    """Return a product's values (n, r): added up, times the output channels' scales, plus their bias."""
    if not many:
        total = tl.sum(total, axis=1)[:, None]
    if scales is not None:
        total *= tl.load(scales + channels, mask=inside, other=0.0).to(tl.float32)[:, None]
    if bias is not None:
        total += tl.load(bias + channels, mask=inside, other=0.0).to(tl.float32)[:, None]
    return total


@kernel
def group_start(group: Tile, size: tl.constexpr, longer: tl.constexpr) -> Tile:
    """Return a group's first channel: groups have ``size`` channels, the first ``longer`` of them one more."""
    return group * size + tl.minimum(group, longer)
