"""Makes logits of answers alone: a prompt's are no part of the loss, and may take more memory than all layers do."""

from __future__ import annotations

from typing import Any

import torch
from transformers.modeling_outputs import CausalLMOutputWithPast

from llava.constants import IGNORE_INDEX


def forward_answers(model: Any, labels: torch.Tensor, **inputs: Any) -> CausalLMOutputWithPast:
    """Run a LLaVA's decoder on ``inputs``; return loss and logits (1, n, V) of what predicts ``labels`` (B, T).

    These n positions are in the rows' order.
    """
    hidden = model.get_model()(**inputs).last_hidden_state
    counts = labels[:, 1:] != IGNORE_INDEX
    logits = model.lm_head(hidden[:, :-1][counts])[None]
    targets = labels[:, 1:][counts][None]
    loss = model.loss_function(logits, None, model.config.vocab_size, shift_labels=targets, **inputs)
    return CausalLMOutputWithPast(loss=loss, logits=logits)


def answer_logits(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the logits (n, V) that predict ``labels`` (B, T), of all positions (B, T, V) or of answers alone."""
    if logits.shape[:2] != labels.shape:
        return logits[0]
    return logits[:, :-1][labels[:, 1:] != IGNORE_INDEX]
