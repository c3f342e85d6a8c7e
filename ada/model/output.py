"""What a forward under budgets returns beside logits and loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers.modeling_outputs import CausalLMOutputWithPast


@dataclass
class BudgetedOutput(CausalLMOutputWithPast):
    """Fields, not loose attributes: accelerate, and torch's data parallelism, rebuild an output from its fields."""

    granted_units: torch.Tensor | None = None  # (B,)
    gates: torch.Tensor | None = None  # (B, N, 2, A)
    labels: torch.Tensor | None = None  # (B, T + 1)
