"""Samples tokens from a separate random generator, so that a seed gives the same answer in a busy process."""

from __future__ import annotations

import math

import torch
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

TOP_K = 50  # what ``generate`` samples from where the model's generation config has no top_k


class SeededSampler(LogitsProcessor):  # type: ignore[misc]
    """Leaves one token of each row possible, drawn as ``generate`` would draw it; for a greedy ``generate``.

    ``generate`` itself draws from torch's global generator, which all threads share. The generator here is the CPU's,
    so that a seed means the same on every device. temperature: above 0; top_p: None or 1 keeps all tokens; top_k: 0
    keeps all, None is ``TOP_K``; min_p: None or 0 keeps all.
    """

    def __init__(
        self,
        seed: int,
        temperature: float,
        top_p: float | None = None,
        top_k: int | None = None,
        min_p: float | None = None,
    ) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        top_k = TOP_K if top_k is None else top_k
        self._warpers = LogitsProcessorList([TemperatureLogitsWarper(float(temperature))])
        if top_k:
            self._warpers.append(TopKLogitsWarper(top_k))
        if top_p is not None and top_p < 1:
            self._warpers.append(TopPLogitsWarper(top_p))
        if min_p:
            self._warpers.append(MinPLogitsWarper(min_p))

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Draw from ``scores`` (B, V): the same shape, 0 for the drawn token, minus infinity for all others."""
        likely = self._warpers(input_ids, scores).float().softmax(dim=-1).cpu()
        drawn = torch.multinomial(likely, 1, generator=self._generator).to(scores.device)  # (rows, 1)
        return torch.full_like(scores, -math.inf).scatter(1, drawn, 0.0)
