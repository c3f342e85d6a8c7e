"""Decodes one token of each of several rows: cut where their plans agree on a layer, dense under gates where not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch.nn import functional

from ada.engine.decoder import Attend, Decoder, Gates
from ada.engine.kv_slots import KVSlots
from ada.engine.prefill import gates_of
from ada.engine.rotary import RotaryTable
from ada.engine.row import Row
from ada.execution.layer_weights import LayerWeights


@dataclass(frozen=True)
class StepLayer:
    """What a step runs of one layer, for all rows alike.

    heads: key-value heads that it reads of the slots, the first ones. order: (R, K), the key-value head that stands at
    each index of a row's slot, where rows differ; None where it is the weights' own order. level: which of the step's
    column counts are this layer's.
    """

    index: int
    weights: LayerWeights
    heads: int
    level: int
    gates: Gates | None = None
    order: torch.Tensor | None = None


@dataclass
class Level:
    """The columns of layers that read the same of each row: counts, and which of them a step attends to.

    counts: (R,), filled before the step; mask: (R, 1, 1, columns), None where every row attends to all; width: the
    columns that a step attends to, its own included.
    """

    counts: list[int]
    columns: torch.Tensor
    mask: torch.Tensor | None = None
    width: int = field(init=False)

    def __post_init__(self) -> None:
        self.width = max(self.counts) + 1

    def advance(self) -> None:
        """Count a token of each row."""
        self.counts = [count + 1 for count in self.counts]
        self.width += 1


class DecodeStep:
    """Steps of the rows that stand in the first slots, in their order, as long as none joins or leaves."""

    def __init__(self, decoder: Decoder, slots: KVSlots, table: RotaryTable, rows: Sequence[Row]) -> None:
        self.decoder, self.slots, self.table, self.rows = decoder, slots, table, list(rows)
        self.device = slots.layers[0][0].device
        self._indices = torch.arange(len(rows), device=self.device)
        self._attends: list[Attend] = []  # one a layer, over what the slots have at this capacity
        self._capacity = 0
        counts = [tuple(row.columns[index] for row in rows) for index in range(len(decoder.layers))]
        distinct = list(dict.fromkeys(counts))
        self.levels = [Level([*own], torch.empty(0)) for own in distinct]
        self.layers = [
            layer for index, own in enumerate(counts) if (layer := self._layer(index, distinct.index(own))) is not None
        ]

    def __call__(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the logits (R, vocabulary), float32, of what follows ``tokens`` (R,)."""
        self.slots.reach(max(level.width for level in self.levels))
        if self.slots.capacity != self._capacity:
            self._attends, self._capacity = [self._attend(layer) for layer in self.layers], self.slots.capacity
        positions = torch.tensor([row.position for row in self.rows], device=self.device)
        rope = self.table.at(positions, max(row.position for row in self.rows) + 1)
        for level in self.levels:
            self._look(level)
        hidden = self.decoder.model.get_input_embeddings()(tokens)
        for layer, attend in zip(self.layers, self._attends, strict=True):
            hidden = self.decoder.run(layer.index, layer.weights, hidden, rope, attend, layer.gates)
        for row in self.rows:
            row.advance()
        for level in self.levels:
            level.advance()
        return self.decoder.logits(hidden)

    def _layer(self, index: int, level: int) -> StepLayer | None:
        """What runs of a layer; None where nothing does."""
        rows, decoder = self.rows, self.decoder
        held, plan = [row.held_heads(index) for row in rows], rows[0].plan
        if all(row.plan.layers[index].is_empty for row in rows):
            return None
        if all(row.plan.is_full(index) for row in rows):
            return StepLayer(index, decoder.dense(index), decoder.kv_heads, level)
        kept = plan.layers[index]
        if all(row.plan.layers[index] == kept and own == kept.heads for row, own in zip(rows, held, strict=True)):
            weights = decoder.narrow(index, kept)
            if weights is not None:
                return StepLayer(index, weights, len(kept.heads), level)
        gates = torch.stack([row.gates[index] for row in rows])
        order = self._order(held)
        return StepLayer(index, decoder.dense(index), decoder.kv_heads, level, gates_of(decoder, index, gates), order)

    def _order(self, held: Sequence[tuple[int, ...]]) -> torch.Tensor | None:
        """Heads by index of a slot: those that a row holds, then the others, which no gate lets through."""
        every = tuple(range(self.decoder.kv_heads))
        orders = [(*own, *(head for head in every if head not in own)) for own in held]
        return None if set(orders) == {every} else torch.tensor(orders, device=self.device)

    def _look(self, level: Level) -> None:
        """Set which columns this step writes and attends to."""
        level.columns = torch.tensor(level.counts, device=self.device)
        if len(set(level.counts)) > 1:
            columns = torch.arange(level.width, device=self.device)
            level.mask = (columns <= level.columns[:, None])[:, None, None]

    def _attend(self, layer: StepLayer) -> Attend:
        # What is made here must not hold this object: it would stay, and the narrow weights with it, until Python
        # looks for circles.
        level, order, group = self.levels[layer.level], layer.order, self.decoder.group
        scale, count, slots = self.decoder.layers[layer.index].scale, len(self.rows), self._indices
        old_keys, old_values = (states[:count, : layer.heads] for states in self.slots.layers[layer.index])

        def attend(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
            # A key-value head's queries attend as one.
            queries = queries.view(count, -1, group, queries.shape[2])
            if order is not None:
                queries, keys, values = (_by_index(states, order) for states in (queries, keys, values))
            _write(old_keys, keys, level, slots)
            _write(old_values, values, level, slots)
            mixed = functional.scaled_dot_product_attention(
                queries.to(old_keys.dtype),
                old_keys[:, :, : level.width],
                old_values[:, :, : level.width],
                attn_mask=level.mask,
                scale=scale,
            )
            if order is not None:
                mixed = _by_index(mixed, order.argsort(dim=1))
            return mixed.flatten(1, 2).to(queries.dtype)

        return attend


def _write(cache: torch.Tensor, states: torch.Tensor, level: Level, slots: torch.Tensor) -> None:
    """Write states (R, K, d) into each row's next column of ``cache`` (R, K, capacity, d); slots: 0 to R - 1."""
    if level.mask is None:
        cache[:, :, level.counts[0]] = states
    else:
        cache[slots, :, level.columns] = states.to(cache)


def _by_index(states: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """States (R, K, ...) with the heads of each row in the order of ``index`` (R, K)."""
    index = index.view(*index.shape, *[1] * (states.dim() - 2))
    return states.gather(1, index.expand_as(states))
