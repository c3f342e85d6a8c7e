"""Times decode steps of several rows: one prompt is read, and its slot repeated."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch

from ada.engine.engine_rows import EngineRows
from ada.engine.support import reason_of_model
from ada.latency.latency_model import Workload
from ada.protocols import AdaptiveModel

STEPS = 4  # timed of one workload, after one that is not
ROUNDS = 2


@dataclass(frozen=True)
class MeasuredStep:
    """A decode step's workload, and the milliseconds of its fastest run."""

    workload: Workload
    step_ms: float


class TimesSteps(Protocol):
    """Runs decode steps of a workload; returns the milliseconds of the fastest."""

    def __call__(self, workload: Workload) -> float:
        """Decode as many rows, contexts and units as the workload says."""


class StepTimer:
    """Times a loaded model's rows, all under one plan, in the engine."""

    def __init__(self, model: AdaptiveModel, seed: int = 0) -> None:
        self.model, self.rng = model, torch.Generator().manual_seed(seed)

    @torch.no_grad()
    def __call__(self, workload: Workload) -> float:
        """Read a random prompt of text into each of the workload's rows, and decode; return the fastest step."""
        model, rows = self.model, self._rows(self.model, workload)
        tokens = torch.full((workload.rows,), 3, device=model.device)
        times = []
        for _ in range(1 + STEPS):
            started = time.perf_counter()
            rows.step(tokens)[0, 0].item()  # a GPU has computed it then
            times.append(1000 * (time.perf_counter() - started))
        return min(times[1:])

    def _rows(self, model: Any, workload: Workload) -> EngineRows:
        context = max(2, workload.num_tokens // workload.rows)
        text = context - (model.scheduler is not None)  # and the latency token
        ids = torch.randint(3, model.config.vocab_size - 1, (1, text), generator=self.rng).to(model.device)
        batch, execution = model.begin(model.embed(ids), torch.tensor([workload.num_units]))
        rows = EngineRows(model, workload.rows, model.get_input_embeddings().weight)
        rows.read(batch, execution)
        first = rows.rows[0]
        for slot in range(1, workload.rows):
            rows.slots.move(0, slot)
            rows.rows.append(replace(first, slot=slot, columns=[*first.columns]))
        return rows


def step_timer(model: AdaptiveModel, seed: int = 0) -> StepTimer | None:
    """Return what times a model's steps; None where the engine cannot decode it, and rows are decoded otherwise."""
    return StepTimer(model, seed) if reason_of_model(model) is None else None


def time_steps(workloads: Sequence[Workload], timer: TimesSteps) -> list[MeasuredStep]:
    """Run all workloads in rounds; the fastest run of each counts."""
    rounds = [[timer(workload) for workload in workloads] for _ in range(ROUNDS)]
    return [
        MeasuredStep(workload, min(times)) for workload, times in zip(workloads, zip(*rounds, strict=True), strict=True)
    ]
