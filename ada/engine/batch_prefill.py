"""Takes the rows of a batch that the model's own forward has read over into slots."""

from __future__ import annotations

import torch
from transformers import DynamicCache

from ada.engine.kv_slots import KVSlots
from ada.engine.row import Row, heads_held
from ada.execution.call_state import Execution
from llava.model.multimodal.embedded_batch import EmbeddedBatch


def adopt(slots: KVSlots, first: int, cache: DynamicCache, batch: EmbeddedBatch, execution: Execution) -> list[Row]:
    """Write a batch's cache into the slots from ``first`` on; return its rows.

    batch: what was read, padded on the left; execution: of the forward that read it.
    """
    count, width = batch.embeds.shape[:2]
    slots.reach(width + 1)
    mask = batch.attention_mask
    real = torch.ones(count, width, dtype=torch.bool) if mask is None else mask.bool()
    real, late = real.to(batch.embeds.device), execution.own_late_tokens
    stays = real if late is None or late.stays is None else real & late.stays
    index, late_index = _columns_first(real), _columns_first(stays)
    columns = []
    for layer in range(len(slots.layers)):
        reads_late = late is not None and layer >= late.first_layer
        columns.append((stays if reads_late else real).sum(dim=1).tolist())
        if layer < len(cache.layers) and cache.layers[layer].is_initialized:
            _write(slots, first, layer, cache, late_index if reads_late else index)
    positions = ([width] * count) if batch.position_ids is None else (batch.position_ids[:, -1] + 1).tolist()
    masked = execution.masked_layers
    return [
        Row(
            first + row,
            plan,
            [heads_held(plan, layer, layer in masked) for layer in range(len(slots.layers))],
            positions[row],
            [own[row] for own in columns],
        )
        for row, plan in enumerate(execution.finish(count))
    ]


def _columns_first(stays: torch.Tensor) -> torch.Tensor:
    """Indices (B, T) of the columns that stay, in their order, and of the others after them."""
    return (~stays).int().argsort(dim=1, stable=True)


def _write(slots: KVSlots, first: int, layer: int, cache: DynamicCache, index: torch.Tensor) -> None:
    for target, source in zip(slots.layers[layer], (cache.layers[layer].keys, cache.layers[layer].values), strict=True):
        rows, heads, width = source.shape[:3]
        taken = source.gather(2, index[:, None, :, None].expand_as(source))
        target[first : first + rows, :heads, :width] = taken
