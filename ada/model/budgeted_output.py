"""Holds what a forward under latency budgets returns."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers.modeling_outputs import CausalLMOutputWithPast


@dataclass
class BudgetedOutput(CausalLMOutputWithPast):  # type: ignore[misc]
    """What a forward under budgets returns in addition to logits and loss.

    Fields, not loose attributes: accelerate, and torch's data parallelism, rebuild an output from its fields.
    """

    granted_units: torch.Tensor | None = None  # (B,)
    gates: torch.Tensor | None = None  # (B, N, 2, A)
    labels: torch.Tensor | None = None  # (B, T + 1)
