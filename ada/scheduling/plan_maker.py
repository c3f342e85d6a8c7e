"""Makes one call's plan: the latency token's state in, scores out; scores and granted units in, gates out."""

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

    def score(self, state: torch.Tensor | None) -> torch.Tensor | None:
        """Return the scheduler's logits, float32: at inference on the CPU, where the plan is made.

        state: (B, D), the latency token's hidden state as it enters layer P, None where there is no latency token.
        Fetching the logits is where a prefill on a GPU waits for it, once.
        """
        if self.scheduler is None or state is None:
            return None
        logits: torch.Tensor = self.scheduler(state if self.token_embedding is None else self.token_embedding)
        return logits.cpu() if self.noise is None else logits

    def __call__(self, scores: torch.Tensor | None, granted: torch.Tensor) -> torch.Tensor:
        """Return gates (B, N, 2, A), where the scores are; granted: (B,) tunable units."""
        return self.planner(self.units, granted if scores is None else granted.to(scores.device), scores, self.noise)


@dataclass(frozen=True)
class MadePlan:
    """A plan that was made before, as what makes it: ``gates`` (B, N, 2, A) whatever the scores."""

    gates: torch.Tensor

    def __call__(self, scores: torch.Tensor | None, granted: torch.Tensor) -> torch.Tensor:
        """Return the gates."""
        return self.gates
