"""Makes a prompt that vLLM takes as embeddings: its text, its images and, at the end, its budget's latency token."""

from __future__ import annotations

from typing import Any

import torch

from ada.budget import LatencyBudget
from ada.model.call_setup import CallSetup


@torch.inference_mode()
def prompt_embeds(model: Any, input_ids: torch.Tensor, budget: float, **images: Any) -> torch.Tensor:
    """Embed a prompt (1, T) for a budget, a share of the prefill; return (T', D), the latency token last.

    model: an adaptive LLaVA. images: ``images`` and ``image_sizes``, as ``generate`` takes them. All image tokens are
    read, since positions in vLLM have no gaps.
    """
    batch = model.embed(input_ids, **images)
    setup = CallSetup([LatencyBudget(budget)], image_tokens="all")
    _, batch, _ = setup.begin(model, batch)
    embeds: torch.Tensor = batch.embeds[0]
    return embeds
