"""Scores every switch from the latency token's hidden state as it enters layer P: the scheduler."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from ada.scheduling.latency_token import LatencyEncoder
from ada.scheduling.units import Units


class Float32Linear(nn.Linear):
    """Projects in float32 whatever the dtype of its weights, of its input, and of an autocast around it.

    The weights keep their dtype: in checkpoints, and as what gradients arrive in.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Project ``x`` (..., C) to float32."""
        bias = None if self.bias is None else self.bias.float()
        with torch.autocast(x.device.type, enabled=False):
            return functional.linear(x.float(), self.weight.float(), bias)


class Scheduler(nn.Module):
    """Latency encoder and scoring head.

    The keys ``mlp_head`` and ``scheduler_up_proj`` are those of the published format. The head computes in float32: in
    half precision every eighth plan would hang on how its logits were rounded.
    """

    def __init__(self, units: Units, hidden_size: int) -> None:
        super().__init__()
        per_layer = 1 if units.kind == "L" else 2 * units.num_switches
        self.logits_shape = (
            (units.num_tunable_layers,) if units.kind == "L" else (units.num_tunable_layers, 2, units.num_switches)
        )
        self.scheduler_up_proj = LatencyEncoder(hidden_size)
        self.mlp_head = Float32Linear(hidden_size, units.num_tunable_layers * per_layer)

    def encode(self, u: torch.Tensor) -> torch.Tensor:
        """Encode ``u`` (B,) in [0, 1) as latency tokens (B, 1, D)."""
        token: torch.Tensor = self.scheduler_up_proj(u)
        return token

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Score the switches from hidden states (B, D).

        Returns logits in float32: (B, N) for L; (B, N, 2, A) for H, heads then neuron groups.
        """
        logits: torch.Tensor = self.mlp_head(hidden)
        return logits.view(len(hidden), *self.logits_shape)
