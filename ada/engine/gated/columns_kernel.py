"""Projects attention heads, or neuron groups, back into the residual stream: o_proj and down_proj, in place."""

from __future__ import annotations

from ada.engine.gated.residual_kernel import write_residual
from ada.engine.gated.tiles import add_product, finished, group_start, zero_sum
from ada.engine.gated.triton_language import Pointer, Tile, kernel, tl


@kernel
def rows_with_any(on: Pointer, rows: Tile, live: Tile, rows_padded: tl.constexpr, switches: tl.constexpr,
                  off: tl.constexpr) -> Tile:  # fmt: skip
    """Return 1 for each row (r,) that has any of its switches (R, A) on, 0 for others; ``off``: what says off there."""
    any_on = tl.zeros([rows_padded], tl.int32)
    for switch in range(switches):
        state = tl.load(on + rows * switches + switch, mask=live, other=off)
        any_on = tl.where(state != off, 1, any_on)
    return any_on


@kernel
def columns_kernel(
    source: Pointer, weight: Pointer, weight_scales: Pointer, bias: Pointer, x: Pointer, squares: Pointer,
    groups: Pointer, on: Pointer,
    sources: tl.constexpr, width: tl.constexpr, switches: tl.constexpr, off: tl.constexpr, size: tl.constexpr,
    longer: tl.constexpr, per_group: tl.constexpr, aligned: tl.constexpr, stride: tl.constexpr,
    num_rows: tl.constexpr, rows_padded: tl.constexpr, block: tl.constexpr, depth: tl.constexpr, many: tl.constexpr,
    stages: tl.constexpr,
) -> None:  # fmt: skip
    """Add source (R, K) times the columns, in weight (D, K), of the groups that any row has on, to x (R, D).

    Source holds zeros where a group is on for other rows only. A block of weights begins at a multiple of ``aligned``
    columns, so that a thread loads many at once whatever a group's size: it may reach into its neighbours, whose
    weights are replaced by zeros. per_group: the blocks that any group needs. Where no group is on, x and squares stay.
    """
    steps = tl.load(groups) * per_group
    if steps == 0:
        return
    rows = tl.arange(0, rows_padded)
    live = rows < num_rows
    channels = tl.program_id(0) * block + tl.arange(0, block)
    inside = channels < width
    start = weight + channels.to(tl.int64)[:, None] * sources
    total = zero_sum(block, rows_padded, depth, many)
    for step in tl.range(0, steps, num_stages=stages):
        group = tl.load(groups + 1 + step // per_group)
        first, end = group_start(group, size, longer), group_start(group + 1, size, longer)
        columns = first // aligned * aligned + (step % per_group) * depth + tl.arange(0, depth)
        reached = columns < tl.cdiv(end, aligned) * aligned
        if sources % aligned != 0:
            reached = reached & (columns < sources)
        own = (columns >= first) & (columns < end)
        weights = tl.load(start + columns[None, :], mask=inside[:, None] & reached[None, :], other=0)
        weights = tl.where(own[None, :], weights, 0)
        values = tl.load(
            source + rows[:, None] * sources + columns[None, :], mask=live[:, None] & own[None, :], other=0
        )
        total = add_product(total, weights.to(weight.dtype.element_ty), values, many)
    total = finished(total, weight_scales, None, channels, inside, many)
    if bias is not None:
        shift = tl.load(bias + channels, mask=inside, other=0.0).to(tl.float32)
        total += shift[:, None] * rows_with_any(on, rows, live, rows_padded, switches, off)[None, :].to(tl.float32)
    at = x + rows[None, :] * width + channels[:, None]
    total += tl.load(at, mask=inside[:, None] & live[None, :], other=0.0).to(tl.float32)
    write_residual(x, squares, total, rows, live, channels, width, stride)
