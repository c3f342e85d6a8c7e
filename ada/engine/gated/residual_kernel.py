"""Starts a step: token embeddings become the residual stream, with the sums of squares that RMSNorm needs."""

from __future__ import annotations

from ada.engine.gated.triton_language import Pointer, Tile, kernel, tl


@kernel
def write_residual(x: Pointer, squares: Pointer, values: Tile, rows: Tile, live: Tile, channels: Tile,
                   width: tl.constexpr, stride: tl.constexpr) -> None:  # fmt: skip
    """Write values (n, r) of this program's channels to x (R, D), and their sum of squares to its part.

    Who reads x sums the parts up in one order, so that results do not hang on which program ends first.
    """
    values = values.to(x.dtype.element_ty)
    inside = (channels < width)[:, None] & live[None, :]
    tl.store(x + rows[None, :] * width + channels[:, None], values, mask=inside)
    exact = tl.where(inside, values.to(tl.float32), 0.0)
    tl.store(squares + tl.program_id(0) * stride + rows, tl.sum(exact * exact, axis=0), mask=live)


@kernel
def embed_kernel(tokens: Pointer, table: Pointer, x: Pointer, squares: Pointer, width: tl.constexpr,
                 stride: tl.constexpr, num_rows: tl.constexpr, rows_padded: tl.constexpr,
                 block: tl.constexpr) -> None:  # fmt: skip
    """Read the rows' embeddings from table (V, D) into x (R, D). A program has ``block`` channels."""
    rows = tl.arange(0, rows_padded)
    live = rows < num_rows
    channels = tl.program_id(0) * block + tl.arange(0, block)
    token = tl.load(tokens + rows, mask=live, other=0).to(tl.int64)
    inside = (channels < width)[:, None] & live[None, :]
    values = tl.load(table + token[None, :] * width + channels[:, None], mask=inside, other=0.0)
    write_residual(x, squares, values, rows, live, channels, width, stride)
