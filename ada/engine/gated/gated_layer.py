"""Runs one decoder layer for the rows of a step: five or six kernels that read only what some row has on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from ada.engine.gated.attention_kernels import attend_kernel, join_kernel
from ada.engine.gated.columns_kernel import columns_kernel
from ada.engine.gated.device_plan import OFF, LayerSwitches
from ada.engine.gated.gate_up_kernel import gate_up_kernel
from ada.engine.gated.qkv_kernel import qkv_kernel
from ada.engine.gated.shapes import DecoderShapes
from ada.engine.gated.tiling import Block, Tiling, padded
from ada.engine.gated.work_buffers import WorkBuffers

ALIGNED = 16
"""Columns: at multiples of it a thread loads 16 bytes at once, of weights of every kind."""


@dataclass(frozen=True, eq=False)
class LayerCache:
    """One layer's slots: keys, values (slots, A, capacity, d), filled columns (slots,), next positions (slots,).

    cosines, sines: (positions, d / 2) float32, what rotates keys and queries.
    """

    keys: torch.Tensor
    values: torch.Tensor
    lengths: torch.Tensor
    positions: torch.Tensor
    cosines: torch.Tensor
    sines: torch.Tensor


@dataclass(frozen=True, eq=False)
class GatedLayer:
    """A decoder layer whose weights stay where they are, and what its kernels read and write."""

    layer: Any
    shapes: DecoderShapes
    switches: LayerSwitches
    cache: LayerCache
    work: WorkBuffers
    tiling: Tiling

    def run(self, rows: int) -> None:
        """Add the layer's output to the residual stream of the first ``rows`` slots."""
        attention, mlp, shapes, work = self.layer.self_attn, self.layer.mlp, self.shapes, self.work
        head_group = shapes.shared * shapes.head_dim, 0
        self._project_qkv(rows)
        self._attend(rows)
        self._add_columns(rows, work.attended, attention.o_proj, head_group, self.switches.heads, self.switches.kept_at)
        self._project_gate_up(rows)
        neuron_group = divmod(shapes.neurons, shapes.kv_heads)
        self._add_columns(rows, work.neurons, mlp.down_proj, neuron_group, self.switches.groups, self.switches.on)

    def _project_qkv(self, rows: int) -> None:
        shapes, work, cache, attention = self.shapes, self.work, self.cache, self.layer.self_attn
        block = self._rows_block(rows)
        tiles = shapes.kv_heads * (shapes.shared + 2) * -(-shapes.head_dim // 2 // block.channels)
        qkv_kernel[(min(tiles, self.tiling.programs),)](
            work.x, work.squares, self.layer.input_layernorm.weight,
            *_tensors(attention.q_proj), *_tensors(attention.k_proj), *_tensors(attention.v_proj),
            cache.cosines, cache.sines, work.queries, cache.keys, cache.values,
            self.switches.heads, self.switches.kept_at, cache.lengths, cache.positions,
            head_dim=shapes.head_dim, shared=shapes.shared, kv_heads=shapes.kv_heads, capacity=cache.keys.shape[2],
            **self._norm_sizes(rows), **_row_sizes(rows, block),
        )  # fmt: skip

    def _attend(self, rows: int) -> None:
        shapes, work, cache = self.shapes, self.work, self.cache
        block, stages, warps = self.tiling.attend
        splits = self.tiling.splits(rows, shapes.kv_heads)
        sizes = {"head_dim": shapes.head_dim, "dim_padded": padded(shapes.head_dim), "shared": shapes.shared,
                 "kv_heads": shapes.kv_heads, "splits": splits}  # fmt: skip
        attend_kernel[(shapes.kv_heads, rows, splits)](
            work.queries, cache.keys, cache.values, work.attended, work.sums, work.tops, work.norms,
            self.switches.heads, self.switches.kept_at, cache.lengths, scaling=self.layer.self_attn.scaling,
            shared_padded=1 if shapes.shared == 1 else padded(shapes.shared), capacity=cache.keys.shape[2],
            block=block, stages=stages, num_warps=warps, **sizes,
        )  # fmt: skip
        if splits > 1:
            join_kernel[(shapes.heads, rows)](
                work.sums, work.tops, work.norms, work.attended, self.switches.heads,
                splits_padded=padded(splits, minimum=1), num_warps=1, **sizes,
            )  # fmt: skip

    def _project_gate_up(self, rows: int) -> None:
        shapes, work, mlp = self.shapes, self.work, self.layer.mlp
        size, longer = divmod(shapes.neurons, shapes.kv_heads)
        block = self._rows_block(rows)
        tiles = shapes.kv_heads * -(-(size + (longer > 0)) // block.channels)
        gate_up_kernel[(min(tiles, self.tiling.programs),)](
            work.x, work.squares, self.layer.post_attention_layernorm.weight,
            *_tensors(mlp.gate_proj), *_tensors(mlp.up_proj), work.neurons, self.switches.groups, self.switches.on,
            num_neurons=shapes.neurons, switches=shapes.kv_heads, size=size, longer=longer,
            **self._norm_sizes(rows), **_row_sizes(rows, block),
        )  # fmt: skip

    def _add_columns(
        self,
        rows: int,
        source: torch.Tensor,
        linear: Any,
        group: tuple[int, int],
        groups: torch.Tensor,
        on: torch.Tensor,
    ) -> None:
        """Add ``linear`` of the groups that are on. group: columns of one, and how many groups have one more."""
        shapes, work = self.shapes, self.work
        size, longer = group
        reach = size + (longer > 0) + (ALIGNED - 1 if longer or size % ALIGNED else 0)
        block = self.tiling.columns_block(rows, reach)
        columns_kernel[(self.tiling.parts(rows, shapes.width),)](
            source, *_tensors(linear), work.x, work.squares, groups, on,
            sources=linear.weight.shape[1], width=shapes.width, switches=shapes.kv_heads,
            off=OFF if on is self.switches.kept_at else 0, size=size, longer=longer,
            per_group=-(-reach // block.depth), aligned=ALIGNED, stride=work.squares.shape[1],
            **_row_sizes(rows, block),
        )  # fmt: skip

    def _rows_block(self, rows: int) -> Block:
        return self.tiling.rows_block(rows, self.shapes.width, self.work.x.dtype == torch.float32)

    def _norm_sizes(self, rows: int) -> dict[str, Any]:
        parts = self.tiling.parts(rows, self.shapes.width)
        return {
            "eps": self.shapes.eps,
            "width": self.shapes.width,
            "parts": parts,
            "parts_padded": padded(parts),
            "stride": self.work.squares.shape[1],
        }


def _tensors(linear: Any) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """Return a projection's weight (out, in); of 8-bit weights the scales (out,); the bias (out,)."""
    return linear.weight, getattr(linear, "scale", None), linear.bias


def _row_sizes(rows: int, block: Block) -> dict[str, Any]:
    """Return what a product's kernel is compiled for: its rows, and its tiles."""
    return {
        "num_rows": rows,
        "rows_padded": padded(rows) if rows > 1 else 1,
        "block": block.channels,
        "depth": block.depth,
        "many": rows > 1,
        "stages": block.stages,
        "num_warps": block.warps,
    }
