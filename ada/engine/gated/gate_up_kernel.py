"""Projects the residual stream to the MLP's neurons, in the neuron groups that any row has on."""

from __future__ import annotations

from ada.engine.gated.tiles import add_product, finished, group_start, normed, row_scales, zero_sum
from ada.engine.gated.triton_language import Pointer, Tile, kernel, tl


@kernel
def gated_neurons(x: Pointer, norm: Pointer, scales: Tile, rows: Tile, live: Tile, gate: Pointer, gate_scales: Pointer,
                  gate_bias: Pointer, up: Pointer, up_scales: Pointer, up_bias: Pointer, channels: Tile, inside: Tile,
                  width: tl.constexpr, block: tl.constexpr, rows_padded: tl.constexpr, depth: tl.constexpr,
                  many: tl.constexpr, stages: tl.constexpr) -> Tile:  # fmt: skip
    """Return SiLU(gate) * up of some neurons: (n, r), float32."""
    offset = channels.to(tl.int64)[:, None] * width
    gate_sum = zero_sum(block, rows_padded, depth, many)
    up_sum = zero_sum(block, rows_padded, depth, many)
    for column in tl.range(0, width, depth, num_stages=stages):
        columns = column + tl.arange(0, depth)
        known = inside[:, None] & (columns < width)[None, :]
        gate_weights = tl.load(gate + offset + columns[None, :], mask=known, other=0)
        up_weights = tl.load(up + offset + columns[None, :], mask=known, other=0)
        values = normed(x, norm, scales, rows, live, columns, width, many)
        gate_sum = add_product(gate_sum, gate_weights, values, many)
        up_sum = add_product(up_sum, up_weights, values, many)
    gates = finished(gate_sum, gate_scales, gate_bias, channels, inside, many)
    return gates / (1.0 + tl.exp(-gates)) * finished(up_sum, up_scales, up_bias, channels, inside, many)


@kernel
def gate_up_kernel(
    x: Pointer, squares: Pointer, norm: Pointer,
    gate: Pointer, gate_scales: Pointer, gate_bias: Pointer, up: Pointer, up_scales: Pointer, up_bias: Pointer,
    neurons: Pointer, groups: Pointer, on: Pointer,
    eps: tl.constexpr, width: tl.constexpr, num_neurons: tl.constexpr, switches: tl.constexpr, size: tl.constexpr,
    longer: tl.constexpr, parts: tl.constexpr, parts_padded: tl.constexpr, stride: tl.constexpr,
    num_rows: tl.constexpr, rows_padded: tl.constexpr, block: tl.constexpr, depth: tl.constexpr, many: tl.constexpr,
    stages: tl.constexpr,
) -> None:  # fmt: skip
    """Write neurons (R, F) of the groups that any row has on; zeros where the row itself has the group off.

    groups: how many neuron groups any row has on, then which; on: (R, A), 1 where a row has a group on.
    """
    maximum: tl.constexpr = size + (1 if longer > 0 else 0)
    per_group: tl.constexpr = (maximum + block - 1) // block
    rows = tl.arange(0, rows_padded)
    live = rows < num_rows
    tiles = tl.load(groups) * per_group
    for tile in range(tl.program_id(0), tiles, tl.num_programs(0)):
        scales = row_scales(squares, rows, live, eps, width, parts, parts_padded, stride)
        group = tl.load(groups + 1 + tile // per_group)
        start = group_start(group, size, longer)
        channels = start + (tile % per_group) * block + tl.arange(0, block)
        inside = channels < group_start(group + 1, size, longer)
        values = gated_neurons(x, norm, scales, rows, live, gate, gate_scales, gate_bias, up, up_scales, up_bias,
                               channels, inside, width, block, rows_padded, depth, many, stages)  # fmt: skip
        row_on = tl.load(on + rows * switches + group, mask=live, other=0)
        values = tl.where((row_on != 0)[None, :], values, 0.0)
        at = neurons + rows[None, :] * num_neurons + channels[:, None]
        tl.store(at, values.to(neurons.dtype.element_ty), mask=inside[:, None] & live[None, :])
