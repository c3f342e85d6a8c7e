"""Lowers the logits of tokens that a prompt or an answer already holds, for a greedy or a sampling ``generate``."""

from __future__ import annotations

import torch
from transformers import LogitsProcessor, RepetitionPenaltyLogitsProcessor


class RepetitionPenalty(LogitsProcessor):  # type: ignore[misc]
    """Divides positive logits, and multiplies negative ones, by ``penalty`` where a token occurred before.

    ``generate`` gets prompts as embeddings and so knows the new tokens only; the prompt's are kept here. prompt: its
    token ids (1, t); ids below 0, which stand for images, are no tokens.
    """

    def __init__(self, penalty: float, prompt: torch.Tensor) -> None:
        self._rule = RepetitionPenaltyLogitsProcessor(float(penalty))
        self._prompt = prompt[prompt >= 0][None]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return ``scores`` (B, V) with the penalty; input_ids (B, t): the new tokens."""
        prompt = self._prompt.to(input_ids.device).expand(len(input_ids), -1)
        penalized: torch.Tensor = self._rule(torch.cat([prompt, input_ids.long()], dim=1), scores)
        return penalized


class CountPenalty(LogitsProcessor):  # type: ignore[misc]
    """Subtracts from a token's logit ``frequency`` times its number of occurrences in the answer, and ``presence``
    where there is one: OpenAI's ``frequency_penalty`` and ``presence_penalty``.
    """

    def __init__(self, frequency: float, presence: float) -> None:
        self._frequency, self._presence = frequency, presence

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return ``scores`` (B, V) with the penalty; input_ids (B, t): the new tokens."""
        new = input_ids.long()
        counts = torch.zeros_like(scores).scatter_add_(1, new, torch.ones_like(new, dtype=scores.dtype))
        return scores - self._frequency * counts - self._presence * (counts > 0)
