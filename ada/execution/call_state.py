"""One call's execution: decides the plan in front of layer P, then tells every layer what of it runs.

An ``Execution`` is made per call, travels as a keyword through the model's forward to every layer, and holds all
that the call needs to remember; nothing is kept on the model, so threads may generate side by side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from ada.execution.narrow_layers import NarrowCache, can_cut
from ada.latency.call_clock import CallClock
from ada.scheduling.execution_plan import ExecutionPlan
from ada.scheduling.units import Units

Choose = Callable[[torch.Tensor | None, torch.Tensor], torch.Tensor]
"""Hidden state of the latency token as it enters layer P (B, D), or None without one, and the tunable units granted
(B,) -> gates (B, N, 2, A)."""


@dataclass(frozen=True)
class LayerAction:
    """What one layer is to do: run as it is (all None), skip, run a narrow twin, or scale by gates (B, 2, A)."""

    skip: bool = False
    narrow: Any = None
    gates: torch.Tensor | None = None


RUN_DENSE, SKIP = LayerAction(), LayerAction(skip=True)


@dataclass
class Execution:
    """``rows`` sequences (more where beams repeat them): tunable units ``granted`` (rows,), ``choose``, and their
    latency tokens' ``place`` (rows,).

    Without ``narrow_cache`` layers are masked instead of cut. ``train`` keeps the gates' gradient.
    ``recompute_granted_units`` returns what is granted by the time the plan is made, as ``clock`` has seen it.
    """

    units: Units
    granted: torch.Tensor
    choose: Choose
    place: torch.Tensor | None
    narrow_cache: NarrowCache | None = None
    train: bool = False
    clock: CallClock | None = None
    recompute_granted_units: Callable[[], torch.Tensor] | None = None
    gates: torch.Tensor | None = None  # (rows, N, 2, A), once decided
    plans: list[ExecutionPlan] | None = None  # one per row, once decided
    _work: dict[int, LayerAction] = field(default_factory=dict)

    def work(self, layer: Any, hidden: torch.Tensor) -> LayerAction:
        """What ``layer`` is to do with ``hidden`` (B, T, D); the plan is chosen when layer P first asks."""
        index = layer.self_attn.layer_idx
        tunable = index - self.units.num_prefix_layers
        if tunable < 0:
            return RUN_DENSE
        if self.gates is None:
            self._decide(hidden)
        if self.train:
            return LayerAction(gates=self.gates[:, tunable])  # type: ignore[index]
        if index not in self._work:
            self._work[index] = self._plan_work(index, layer)
        return self._per_beam(self._work[index], hidden.shape[0])

    @property
    def masked_layers(self) -> frozenset[int]:
        """Layers that ran whole although their plan switches a part of them off."""
        return frozenset(index for index, work in self._work.items() if work.gates is not None)

    def finish(self, rows: int) -> list[ExecutionPlan]:
        """The plans that ran, one per row; of a model without tunable layers, the full plan."""
        if self.plans is None:
            return [ExecutionPlan.full(self.units.num_layers, self.units.num_switches)] * rows
        return self.plans

    def _decide(self, hidden: torch.Tensor) -> None:
        state = None
        if self.place is not None:
            beams = hidden.shape[0] // len(self.place)
            rows = torch.arange(len(self.place), device=hidden.device)
            state = hidden[rows * beams, self.place.to(hidden.device)]
        if self.clock is not None:
            self.clock.plan_is_due(hidden)
        if self.recompute_granted_units is not None:
            self.granted = self.recompute_granted_units()
        self.gates = self.choose(state, self.granted)
        if not self.train:
            self.plans = plans_of(self.gates, self.units)

    def _plan_work(self, index: int, layer: Any) -> LayerAction:
        """The same work for every row where their plans agree on this layer; gates per row where not."""
        plans = self.plans or []
        first = plans[0].layers[index]
        if all(plan.layers[index] == first for plan in plans):
            if plans[0].is_full(index):
                return RUN_DENSE
            if first.is_empty:
                return SKIP
            if self.narrow_cache is not None and can_cut(layer):
                return LayerAction(narrow=self.narrow_cache.get(index, layer, first, self.units.num_switches))
        tunable = index - self.units.num_prefix_layers
        return LayerAction(gates=self.gates[:, tunable].detach())  # type: ignore[index]

    @staticmethod
    def _per_beam(work: LayerAction, batch: int) -> LayerAction:
        if work.gates is None or len(work.gates) == batch:
            return work
        return LayerAction(gates=work.gates.repeat_interleave(batch // len(work.gates), dim=0))


def plans_of(gates: torch.Tensor, units: Units) -> list[ExecutionPlan]:
    """Gates of the tunable layers (B, N, 2, A) -> one plan a row, with the prefix layers whole."""
    prefix = gates.new_ones(len(gates), units.num_prefix_layers, 2, units.num_switches)
    return [ExecutionPlan.from_gates(row) for row in torch.cat([prefix, gates.detach()], dim=1).cpu()]
