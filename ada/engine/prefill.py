"""Reads one prompt into a slot: prefix layers, plan, and what the plan leaves of the other layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from ada.engine.decoder import Attend, Decoder, Gates, Rope
from ada.engine.kv_slots import KVSlots
from ada.engine.rotary import RotaryTable
from ada.engine.row import Row, heads_held
from ada.execution.call_state import RUN_DENSE, Execution, LayerAction
from ada.execution.layer_weights import LayerWeights
from ada.execution.maskable_layer import channel_gates
from ada.scheduling.execution_plan import ExecutionPlan
from llava.model.multimodal.embedded_batch import EmbeddedBatch

Gather = Callable[[ExecutionPlan, int], LayerWeights]
"""A prompt's plan and a layer's index -> the weights of what the plan keeps of the layer, for one use."""


def prefill(
    decoder: Decoder,
    slots: KVSlots,
    slot: int,
    table: RotaryTable,
    batch: EmbeddedBatch,
    execution: Execution,
    gather: Gather | None = None,
) -> tuple[Row, torch.Tensor]:
    """Read a prompt of one row, without padding; return its row and the logits (1, vocabulary) of its next token.

    gather: makes the weights of narrow layers for this prompt alone, where a step does not need them.
    """
    hidden, positions = batch.embeds[0], _positions(batch)
    position = int(positions[-1]) + 1
    slots.reach(batch.width + 1)
    run = _PromptRun(decoder, slots, slot, execution, table.at(positions, position), gather)
    for index in range(len(decoder.layers)):
        hidden = run.layer(index, hidden)
    return Row(slot, execution.finish(1)[0], run.held, position, run.columns), decoder.logits(hidden[-1:])


def _positions(batch: EmbeddedBatch) -> torch.Tensor:
    if batch.position_ids is not None:
        return batch.position_ids[0]
    return torch.arange(batch.width, device=batch.embeds.device)


class _PromptRun:
    """One prompt on its way through the layers."""

    def __init__(
        self, decoder: Decoder, slots: KVSlots, slot: int, execution: Execution, rope: Rope, gather: Gather | None
    ) -> None:
        self.decoder, self.slots, self.slot, self.execution, self.rope = decoder, slots, slot, execution, rope
        self.gather = gather
        self.held: list[tuple[int, ...]] = []
        self.columns: list[int] = []
        position = execution.token_position
        self.token = None if position is None else int(position[0])  # the latency token's column

    def layer(self, index: int, hidden: torch.Tensor) -> torch.Tensor:
        """Run a layer on what enters it, (T, D); return as many positions as it has read."""
        action = self._action(index, hidden)
        hidden = self._read(index, hidden)
        masked = action.gates is not None
        plan = None if self.execution.plans is None else self.execution.plans[0]
        every = tuple(range(self.decoder.kv_heads))
        self.held.append(every if plan is None else heads_held(plan, index, masked))
        self.columns.append(len(hidden))
        if action.skip:
            return hidden
        gates = None if action.gates is None else gates_of(self.decoder, index, action.gates)
        weights = action.narrow or self.decoder.dense(index)
        return self.decoder.run(index, weights, hidden, self.rope, self._attend(index), gates)

    def _action(self, index: int, hidden: torch.Tensor) -> LayerAction:
        """What a layer does; the plan is made as the first tunable one is entered."""
        execution = self.execution
        if index < execution.units.num_prefix_layers:
            return RUN_DENSE
        if execution.gates is None:
            execution.make_plan(None if self.token is None else hidden[None, self.token], hidden[None])
        plan = execution.finish(1)[0]
        if self.gather is None or plan.is_full(index) or plan.layers[index].is_empty:
            return execution.action_of(self.decoder.layers[index].module)
        return LayerAction(narrow=self.gather(plan, index))

    def _read(self, index: int, hidden: torch.Tensor) -> torch.Tensor:
        """Leave out what this layer and those after it do not read."""
        late = self.execution.own_late_tokens
        if late is None:
            return hidden
        layer = self.decoder.layers[index].module
        late.see(layer, hidden[None], {"attention_mask": None, "position_embeddings": _unsigned(self.rope)})
        if index != late.first_layer:
            return hidden
        stays = late.choose(hidden[None])[0]
        self.rope = self.rope[0][stays], self.rope[1][stays]
        if self.token is not None:
            self.token = int(stays[: self.token].sum())
        return hidden[stays]

    def _attend(self, index: int) -> Attend:
        scale, grouped = self.decoder.layers[index].scale, self.decoder.group > 1

        def attend(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
            self.slots.write_prompt(index, self.slot, keys, values)
            q, k, v = (states.transpose(0, 1)[None] for states in (queries, keys, values))
            mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=grouped)
            return mixed[0].transpose(0, 1)

        return attend


def gates_of(decoder: Decoder, index: int, gates: torch.Tensor) -> Gates:
    """Spread gates (N, 2, A) of a layer over its query heads and its MLP's channels."""
    weights = decoder.dense(index)
    like: Any = weights.down.weight  # type: ignore[union-attr]
    heads, groups = gates.to(like).unbind(1)
    return Gates(heads.repeat_interleave(decoder.group, dim=1)[..., None], channel_gates(groups, like.shape[1]))


def _unsigned(rope: Rope) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines (1, T, d), as transformers hands them to a layer."""
    cosines, signed = (part.transpose(0, 1) for part in rope)
    first, second = signed.chunk(2, dim=-1)
    return cosines, torch.cat([-first, second], dim=-1)
