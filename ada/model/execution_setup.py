"""Sets up how a model's layers run: makes them maskable once, and each call's ``Execution``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch

from ada.config import check_layer_kinds
from ada.engine.idle_rows import IdleRows
from ada.execution.call_state import Execution, OnPlan
from ada.execution.layer_weights import can_cut, projection_bytes
from ada.execution.maskable_layer import install
from ada.execution.narrow_cache import NarrowCache
from ada.model.reading import Reading
from ada.scheduling.latency_token import answer_position, insert
from ada.scheduling.plan_maker import PlanMaker
from ada.scheduling.planners import planner_name, planner_named
from ada.scheduling.sample_rng import Draws
from ada.scheduling.scheduler import Scheduler
from ada.scheduling.selection import Noise, on_device
from ada.scheduling.units import Units
from llava.model.multimodal.embedded_batch import EmbeddedBatch


class SetsUpExecution:
    """Mixed in before an adaptive model: what its layers need, for all calls and for one."""

    config: Any
    model: Any
    training: bool
    units: Units
    scheduler: Scheduler | None
    narrow_cache: NarrowCache
    idle_rows: IdleRows

    def install_plans(self) -> None:
        """Make the decoder's layers maskable, on the unit grid that the config describes."""
        check_layer_kinds(self.config)
        self.units = Units.of(self.config)
        tunable = self.model.layers[self.units.num_prefix_layers :]
        self.narrow_cache = NarrowCache(tunable_bytes=partial(_cuttable_bytes, tunable))
        self.idle_rows = IdleRows()
        install(self.model.layers)

    def begin(
        self,
        batch: EmbeddedBatch,
        granted: torch.Tensor,
        planner: str | None = None,
        noise: Noise | None = None,
        narrow: bool = True,
        on_plan_due: Callable[[torch.Tensor], torch.Tensor] | None = None,
        reading: Reading | None = None,
        on_plan: OnPlan | None = None,
    ) -> tuple[EmbeddedBatch, Execution]:
        """Insert the latency token, where the model has a scheduler, and set up one call's execution.

        batch: (B, T, D) embeddings and their masks; granted: (B,) tunable units; planner: a name, by default the one
        that the checkpoint was trained with; noise: of a training draw, by default random; narrow: cut layers at
        inference rather than mask them; on_plan_due, on_plan: see ``Execution``; reading: says what later layers
        read. Training draws with noise and keeps the gates' gradient; it is where the model is in training mode and
        gradients are enabled.
        """
        train = self.training and torch.is_grad_enabled()
        scheduler, position, token = self.scheduler, None, None
        if scheduler is not None:
            position = answer_position(batch)
            token = scheduler.encode(self.units.encoding(granted).to(batch.embeds.device, non_blocking=True))
            batch = insert(batch, token.to(batch.embeds), position)
        if train:
            noise = on_device(noise or Draws.at_random().gumbel(len(granted)), batch.embeds.device)
        reads_budget_alone = token is not None and getattr(self.config, "scheduler_input", None) == "budget"
        make_gates = PlanMaker(
            self.units,
            planner_named(planner_name(self.config, planner)),
            scheduler,
            noise if train else None,
            token[:, 0] if token is not None and reads_budget_alone else None,
        )
        cache = self.narrow_cache if narrow else None
        late = None if reading is None else reading.late_tokens(self, batch, position)
        execution = Execution(
            self.units, granted, make_gates, position, cache, train, on_plan_due, late, make_gates.score, on_plan
        )
        return batch, execution


def _cuttable_bytes(layers: Iterable[Any]) -> int:
    """Return the bytes of the projections of those layers that can be cut."""
    return sum(projection_bytes(layer) for layer in layers if can_cut(layer))
