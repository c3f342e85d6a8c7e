"""Holds what one kernel passes to the next within a decode step."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ada.engine.gated.shapes import DecoderShapes
from ada.engine.gated.tiling import Tiling


@dataclass(frozen=True, eq=False)
class WorkBuffers:
    """Buffers for up to R rows, used by every layer in turn; all bucket sizes share them.

    x: (R, D), the residual stream; squares: (parts, R) float32, sums of squares of x; queries, attended: (R, H, d);
    neurons: (R, F); sums, tops, norms: attention's shares, (R, H, splits, d) and (R, H, splits), float32.
    """

    x: torch.Tensor
    squares: torch.Tensor
    queries: torch.Tensor
    attended: torch.Tensor
    neurons: torch.Tensor
    sums: torch.Tensor
    tops: torch.Tensor
    norms: torch.Tensor

    @classmethod
    def make(cls, shapes: DecoderShapes, rows: int, tiling: Tiling, like: torch.Tensor) -> WorkBuffers:
        """Make buffers on the device, and of the dtype, of ``like``."""
        parts = max(tiling.parts(count, shapes.width) for count in (1, rows))
        shares = max(count * tiling.splits(count, shapes.kv_heads) for count in range(1, rows + 1))
        exact = torch.float32
        return cls(
            x=like.new_zeros(rows, shapes.width),
            squares=like.new_zeros(parts, rows, dtype=exact),
            queries=like.new_zeros(rows, shapes.heads, shapes.head_dim),
            attended=like.new_zeros(rows, shapes.heads, shapes.head_dim),
            neurons=like.new_zeros(rows, shapes.neurons),
            sums=like.new_zeros(shares * shapes.heads * shapes.head_dim, dtype=exact),
            tops=like.new_zeros(shares * shapes.heads, dtype=exact),
            norms=like.new_zeros(shares * shapes.heads, dtype=exact),
        )
