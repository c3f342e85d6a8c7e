"""Holds one call's execution: has the plan made before layer P, then answers each layer what of it runs.

An ``Execution`` is made per call, travels as a keyword through the model's forward to every layer, and holds all
that the call needs to remember. Nothing is kept on the model, so threads may generate at the same time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import nn

from ada.execution.late_tokens import JoinedLateTokens, LateTokens
from ada.execution.layer_weights import LayerWeights, can_cut
from ada.execution.narrow_cache import NarrowCache
from ada.execution.narrow_layers import narrow_layer
from ada.scheduling.execution_plan import ExecutionPlan
from ada.scheduling.units import Units

Score = Callable[[torch.Tensor | None], torch.Tensor | None]
"""The latency token's state as it enters layer P (B, D), or None without one -> the scheduler's scores, or None."""

OnPlan = Callable[[Sequence[ExecutionPlan]], None]
"""Called with a call's plans, one a row, as they are made and whenever one shrinks."""

MakeGates = Callable[[torch.Tensor | None, torch.Tensor], torch.Tensor]
"""The scheduler's scores, or None without one, and the tunable units granted (B,) -> gates (B, N, 2, A)."""


class LayerWatch(Protocol):
    """Sees what enters each layer of a call, as the token scorer's training does."""

    def see(self, layer: Any, hidden: torch.Tensor, keywords: Mapping[str, Any], gates: torch.Tensor | None) -> None:
        """Look at a layer before it runs on ``hidden`` (B, T, D); ``gates`` (B, 2, A) where it is scaled by them."""


@dataclass(frozen=True)
class LayerAction:
    """What one layer does: run dense (all None), skip, run with narrow weights, or scale by gates (B, 2, A).

    over_limit: it is scaled because the limit of narrow layers' memory left none to cut it.
    """

    skip: bool = False
    narrow: LayerWeights | None = None
    gates: torch.Tensor | None = None
    over_limit: bool = False
    _modules: list[Any] = field(default_factory=list, compare=False)

    def module(self, layer: Any) -> Any:
        """Return the module that runs in place of ``layer``, made once."""
        if self.narrow is None:
            return layer
        if not self._modules:
            self._modules.append(narrow_layer(layer, self.narrow))
        return self._modules[0]


RUN_DENSE, SKIP = LayerAction(), LayerAction(skip=True)


@dataclass
class Execution:
    """One call for ``rows`` sequences (more where beams repeat them).

    granted: (rows,) tunable units. make_gates: the planner. token_position: (rows,), the latency tokens' column; None
    without a scheduler. narrow_cache: None to mask layers instead of cutting them. train: keep the gates' gradient.
    on_plan_due: called as the plan is due, with what was computed last: the scores, or without any the hidden states
    (B, T, D); returns what is granted by then. late_tokens: the image tokens that later layers read, where those are
    fewer. score: the scheduler. on_plan: is shown the plans. never_cut: layers to mask although they could be cut.
    watch: sees what enters each layer.
    """

    units: Units
    granted: torch.Tensor
    make_gates: MakeGates
    token_position: torch.Tensor | None
    narrow_cache: NarrowCache | None = None
    train: bool = False
    on_plan_due: Callable[[torch.Tensor], torch.Tensor] | None = None
    late_tokens: LateTokens | JoinedLateTokens | None = None
    score: Score | None = None
    on_plan: OnPlan | None = None
    never_cut: Collection[int] = ()
    watch: LayerWatch | None = field(default=None, init=False)
    gates: torch.Tensor | None = field(default=None, init=False)  # (rows, N, 2, A), once made
    plans: list[ExecutionPlan] | None = field(default=None, init=False)  # one per row, once made
    scores: torch.Tensor | None = field(default=None, init=False)  # the scheduler's, once read
    _actions: dict[int, LayerAction] = field(default_factory=dict, init=False)

    def action(self, layer: Any, hidden: torch.Tensor) -> LayerAction:
        """Return what ``layer`` does with ``hidden`` (B, T, D); the plan is made when layer P first asks."""
        tunable = layer.self_attn.layer_idx - self.units.num_prefix_layers
        if tunable < 0:
            return RUN_DENSE
        if self.gates is None:
            self.make_plan(self._latency_states(hidden), hidden)
        if self.train:
            return LayerAction(gates=self.gates[:, tunable])  # type: ignore[index]
        return self._per_beam(self.action_of(layer), hidden.shape[0])

    def action_of(self, layer: Any) -> LayerAction:
        """Return what a tunable layer does at inference, with a gate a row; the plan has been made."""
        index = layer.self_attn.layer_idx
        if index not in self._actions:
            self._actions[index] = self._action_of(index, layer)
        return self._actions[index]

    def action_at(self, index: int) -> LayerAction:
        """Return what the tunable layer ``index`` has done."""
        return self._actions[index]

    def make_plan(self, state: torch.Tensor | None, hidden: torch.Tensor) -> None:
        """Make the plan. state: the latency tokens' (rows, D), as they enter layer P, None without them; hidden: all
        that enters it (B, T, D).
        """
        self.scores = scores = None if self.score is None else self.score(state)
        if self.on_plan_due is not None:
            self.granted = self.on_plan_due(hidden if scores is None else scores)
        gates = self.make_gates(scores, self.granted)
        if not self.train:
            self.plans = plans_of(gates, self.units)
            if self.on_plan is not None:
                self.on_plan(self.plans)
        self.gates = gates.to(hidden.device, non_blocking=True)  # the host has made them, and waits for nothing

    @property
    def own_late_tokens(self) -> LateTokens | None:
        """What later layers read of the prompts of this call."""
        assert not isinstance(self.late_tokens, JoinedLateTokens)  # of rows that were read by other calls
        return self.late_tokens

    @property
    def masked_layers(self) -> frozenset[int]:
        """Layers that ran dense under a mask although their plan switches a part of them off."""
        return frozenset(index for index, action in self._actions.items() if action.gates is not None)

    @property
    def over_limit(self) -> frozenset[int]:
        """Of the masked layers, those that the limit of narrow layers' memory kept from being cut."""
        return frozenset(index for index, action in self._actions.items() if action.over_limit)

    def smaller_plan(self, row: int, num_units: int, current: ExecutionPlan | None = None) -> ExecutionPlan | None:
        """Return a row's plan for fewer tunable units, by the same scores. current: what runs, by default as made.

        None where it is not within that: untrained planners place fewer units elsewhere.
        """
        if self.plans is None:
            return None
        granted = torch.full_like(self.granted, num_units)
        plan = plans_of(self.make_gates(self.scores, granted)[row : row + 1], self.units)[0]
        return plan if plan.is_within(current or self.plans[row]) else None

    def finish(self, rows: int) -> list[ExecutionPlan]:
        """Return the plans that ran, one per row; of a model without tunable layers, the full plan."""
        if self.plans is None:
            return [ExecutionPlan.full(self.units.num_layers, self.units.num_switches)] * rows
        return self.plans

    def _latency_states(self, hidden: torch.Tensor) -> torch.Tensor | None:
        if self.token_position is None:
            return None
        beams = hidden.shape[0] // len(self.token_position)
        rows = torch.arange(len(self.token_position), device=hidden.device)
        return hidden[rows * beams, self.token_position.to(hidden.device)]

    def _action_of(self, index: int, layer: nn.Module) -> LayerAction:
        """One action for every row where their plans agree on this layer; gates per row where not."""
        plans, over_limit = self.plans or [], False
        first = plans[0].layers[index]
        if all(plan.layers[index] == first for plan in plans):
            if plans[0].is_full(index):
                return RUN_DENSE
            if first.is_empty:
                return SKIP
            if self.narrow_cache is not None and index not in self.never_cut and can_cut(layer):
                weights = self.narrow_cache.get(index, layer, first, self.units.num_switches)
                if weights is not None:
                    return LayerAction(narrow=weights)
                over_limit = True
        tunable = index - self.units.num_prefix_layers
        return LayerAction(gates=self.gates[:, tunable].detach(), over_limit=over_limit)  # type: ignore[index]

    @staticmethod
    def _per_beam(action: LayerAction, batch: int) -> LayerAction:
        if action.gates is None or len(action.gates) == batch:
            return action
        return LayerAction(gates=action.gates.repeat_interleave(batch // len(action.gates), dim=0))


def plans_of(gates: torch.Tensor, units: Units) -> list[ExecutionPlan]:
    """Return one plan a row from gates of the tunable layers (B, N, 2, A); the prefix layers run dense."""
    prefix = gates.new_ones(len(gates), units.num_prefix_layers, 2, units.num_switches)
    return [ExecutionPlan.from_gates(row) for row in torch.cat([prefix, gates.detach()], dim=1).cpu()]
