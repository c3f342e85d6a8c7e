"""Makes one call's plan: the latency token's state and the granted units in, gates out."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ada.scheduling.planners import Planner
from ada.scheduling.scheduler import Scheduler
from ada.scheduling.selection import Noise
from ada.scheduling.units import Units


@dataclass(frozen=True)
class PlanMaker:
    """A call's planner, with the scheduler that scores for it (None where the model has none).

    noise: Gumbel noise, in training only. token_embedding: (B, D), what the scheduler reads instead of the state at
    layer P, for checkpoints that were trained with ``scheduler_input`` "budget".
    """

    units: Units
    planner: Planner
    scheduler: Scheduler | None = None
    noise: Noise | None = None
    token_embedding: torch.Tensor | None = None

    def __call__(self, state: torch.Tensor | None, granted: torch.Tensor) -> torch.Tensor:
        """Return gates (B, N, 2, A).

        state: (B, D), the latency token's hidden state as it enters layer P, None where there is no latency token;
        granted: (B,) tunable units.
        """
        if self.scheduler is None or state is None:
            return self.planner(self.units, granted, None, self.noise)
        read = state if self.token_embedding is None else self.token_embedding
        logits = self.scheduler(read)
        return self.planner(self.units, granted.to(logits.device), logits, self.noise)


@dataclass(frozen=True)
class MadePlan:
    """A plan that was made before, as what makes it: ``gates`` (B, N, 2, A) whatever the state."""

    gates: torch.Tensor

    def __call__(self, state: torch.Tensor | None, granted: torch.Tensor) -> torch.Tensor:
        """Return the gates."""
        return self.gates
