"""Chooses the kernels' block sizes, which change how fast they are but not what they compute."""

from __future__ import annotations

from typing import NamedTuple


class Block(NamedTuple):
    """One program's share of a product: output channels, input channels at a time, blocks in flight, warps."""

    channels: int
    depth: int
    stages: int
    warps: int


class Tiling(NamedTuple):
    """Block sizes of every kernel; ``one_`` for a single row, ``many_`` for several, ``exact_`` in float32.

    attend: columns at a time, blocks in flight, warps. processors: what a GPU runs at the same time; a head's columns
    are split until there are as many programs. programs: the maximum that one launch starts.
    """

    one_rows: Block = Block(8, 256, 3, 4)
    one_columns: Block = Block(16, 256, 4, 4)
    many_rows: Block = Block(16, 128, 3, 8)
    many_exact_rows: Block = Block(16, 32, 2, 4)
    many_columns: Block = Block(16, 128, 3, 4)
    attend: tuple[int, int, int] = (32, 3, 4)
    processors: int = 132
    max_splits: int = 8
    programs: int = 4096

    def rows_block(self, rows: int, width: int, exact: bool) -> Block:
        """Return the block of qkv and gate_up: of weights (channels, ``width``), ``exact`` in float32."""
        block = self.one_rows if rows == 1 else self.many_exact_rows if exact else self.many_rows
        return block._replace(depth=min(block.depth, padded(width)))

    def columns(self, rows: int) -> Block:
        """Return the block of what writes the residual stream."""
        return self.one_columns if rows == 1 else self.many_columns

    def columns_block(self, rows: int, group: int) -> Block:
        """Return the block of o_proj and down_proj: its depth or half of it, which pads ``group`` columns less."""
        block = self.columns(rows)
        depths = [depth for depth in (block.depth, block.depth // 2) if depth >= 16]
        return block._replace(depth=min(depths, key=lambda depth: -(-group // depth) * depth))

    def parts(self, rows: int, width: int) -> int:
        """Return among how many programs the residual stream's ``width`` channels are split."""
        return -(-width // self.columns(rows).channels)

    def splits(self, rows: int, kv_heads: int) -> int:
        """Return among how many programs a head's columns are split: a power of two."""
        splits = 1
        while splits < self.max_splits and splits * rows * kv_heads < self.processors:
            splits *= 2
        return splits


def padded(number: int, minimum: int = 16) -> int:
    """Return the next power of two, ``minimum`` or more: the sizes that a tile may have."""
    return max(minimum, 1 << (number - 1).bit_length())
