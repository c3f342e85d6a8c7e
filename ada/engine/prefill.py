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
from ada.reuse.call_reuse import CallReuse
from ada.reuse.prompt_states import KnownPrompt, PromptStates
from ada.scheduling.execution_plan import ExecutionPlan
from llava.model.multimodal.embedded_batch import EmbeddedBatch

Cut = Callable[[ExecutionPlan, int], LayerWeights]
"""A prompt's plan and a layer's index -> the weights of what the plan keeps of the layer, for one use."""


def prefill(
    decoder: Decoder,
    slots: KVSlots,
    slot: int,
    table: RotaryTable,
    batch: EmbeddedBatch,
    execution: Execution,
    cut: Cut | None = None,
    reuse: CallReuse | None = None,
) -> tuple[Row, torch.Tensor]:
    """Read a prompt of one row, without padding; return its row and the logits (1, vocabulary) of its next token.

    cut: makes the weights of narrow layers for this prompt alone, where a step does not need them. reuse: knows what
    was computed of the prompt's beginning before, and keeps what is computed now.
    """
    hidden, positions = batch.embeds[0], positions_of(batch)
    # On a GPU reading a position would wait for the images' features.
    position = batch.width if batch.position_ids is None else int(positions[-1]) + 1
    slots.reach(batch.width + 1)
    known = None if reuse is None else reuse.known
    run = _PromptRun(decoder, slots, slot, execution, table.at(positions, position), cut, known)
    hidden = hidden[run.start :]
    for index in range(len(decoder.layers)):
        hidden = run.layer(index, hidden)
    row = Row(slot, execution.finish(1)[0], run.held, position, run.columns)
    if reuse is not None and execution.late_tokens is None:
        reuse.cache.add_prompt(run.states_of(row, batch.embeds[0], positions))
        reuse.same_plan = run.start > 0
    return row, decoder.logits(hidden[-1:])


def positions_of(batch: EmbeddedBatch) -> torch.Tensor:
    """Return the positions (T,) of a batch of one row."""
    if batch.position_ids is not None:
        return batch.position_ids[0]
    return torch.arange(batch.width, device=batch.embeds.device)


class _PromptRun:
    """One prompt on its way through the layers.

    start: the first position that a layer runs on, those before it being known. states: (T, D), what entered layer P.
    """

    def __init__(
        self,
        decoder: Decoder,
        slots: KVSlots,
        slot: int,
        execution: Execution,
        rope: Rope,
        cut: Cut | None,
        known: KnownPrompt | None,
    ) -> None:
        self.decoder, self.slots, self.slot, self.execution, self.rope = decoder, slots, slot, execution, rope
        self.cut, self.known = cut, known
        self.start = 0 if known is None else known.length
        self.states: torch.Tensor | None = None
        self.held: list[tuple[int, ...]] = []
        self.columns: list[int] = []
        position = execution.token_position
        self.token = None if position is None else int(position[0])  # the latency token's column

    def layer(self, index: int, hidden: torch.Tensor) -> torch.Tensor:
        """Run a layer on what enters it, (T - start, D); return as many positions as it has read."""
        if index == self.execution.units.num_prefix_layers:
            hidden = self._enter_tunable(hidden)
        action = self._action(index, hidden)
        hidden = self._read(index, hidden)
        masked = action.gates is not None
        plan = None if self.execution.plans is None else self.execution.plans[0]
        every = tuple(range(self.decoder.kv_heads))
        self.held.append(every if plan is None else heads_held(plan, index, masked))
        self.columns.append(self.start + len(hidden))
        if action.skip:
            return hidden
        if self.start:
            self._write_known(index, masked)
        gates = None if action.gates is None else gates_of(self.decoder, index, action.gates)
        weights = action.narrow or self.decoder.dense(index)
        rope = (self.rope[0][self.start :], self.rope[1][self.start :])
        return self.decoder.run(index, weights, hidden, rope, self._attend(index), gates)

    def _enter_tunable(self, hidden: torch.Tensor) -> torch.Tensor:
        """Make the plan of what enters layer P; return the positions that the layers from there on run on."""
        known = self.known
        self.states = hidden if known is None else torch.cat([known.states, hidden])
        self.execution.make_plan(None if self.token is None else self.states[None, self.token], self.states[None])
        if known is None or known.fits(self.execution.finish(1)[0]):
            return hidden
        self.start = 0
        return self.states

    def _action(self, index: int, hidden: torch.Tensor) -> LayerAction:
        """What a layer does."""
        execution = self.execution
        if index < execution.units.num_prefix_layers:
            return RUN_DENSE
        plan = execution.finish(1)[0]
        if self.cut is None or plan.is_full(index) or plan.layers[index].is_empty:
            return execution.action_of(self.decoder.layers[index].module)
        return LayerAction(narrow=self.cut(plan, index))

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

    def _write_known(self, index: int, masked: bool) -> None:
        """Write the known columns of a layer into the slot: of the plan's heads, at their indices where masked."""
        keys, values = self.known.layer(index)  # type: ignore[union-attr]
        heads = list(self.execution.finish(1)[0].layers[index].heads) if masked else slice(len(keys))
        for cache, states in zip(self.slots.layers[index], (keys, values), strict=True):
            cache[self.slot, heads, : self.start] = states

    def _attend(self, index: int) -> Attend:
        scale, grouped, start = self.decoder.layers[index].scale, self.decoder.group > 1, self.start

        def attend(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
            self.slots.write_prompt(index, self.slot, keys, values, start)
            q, k, v = (states.transpose(0, 1)[None] for states in (queries, keys, values))
            mask = None
            if start:
                end = start + len(keys)
                k, v = (cache[None, self.slot, : keys.shape[1], :end].to(q.dtype) for cache in self.slots.layers[index])
                mask = torch.ones(len(keys), end, dtype=torch.bool, device=q.device).tril(start)
            mixed = functional.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, is_causal=mask is None, scale=scale, enable_gqa=grouped
            )
            return mixed[0].transpose(0, 1)

        return attend

    def states_of(self, row: Row, embeds: torch.Tensor, positions: torch.Tensor) -> PromptStates:
        """Return what was computed of the prompt, without its latency token, which is its last position."""
        count = len(embeds) if self.token is None else self.token
        prefix = self.execution.units.num_prefix_layers
        same_plan = all(
            row.plan.layers[index].is_empty or held == row.plan.layers[index].heads
            for index, held in enumerate(row.held)
        )
        layers = len(self.slots.layers) if same_plan else prefix
        kept = [
            tuple(states[self.slot, : len(row.held[index]), :count].clone() for states in self.slots.layers[index])
            for index in range(layers)
        ]
        states = self.states if self.states is not None else embeds  # without tunable layers nothing enters layer P
        plan = row.plan if same_plan else None
        pairs = tuple((keys, values) for keys, values in kept)
        return PromptStates(embeds[:count].clone(), positions[:count].clone(), states[:count].clone(), pairs, plan)


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
