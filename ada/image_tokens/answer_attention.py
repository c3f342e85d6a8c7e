"""Measures, in one training forward, what an answer attends to in its images: what the token scorer learns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from ada.execution.attention_weights import attention_weights
from ada.image_tokens.token_scorer import TokenScorer
from llava.constants import IGNORE_INDEX
from llava.errors import OptionError
from llava.model.multimodal.embedded_batch import EmbeddedBatch


@dataclass
class AnswerAttention:
    """Sums the attention that the last answer's positions pay to image tokens, in layers from ``first_layer`` on.

    An answer's positions are those that predict its tokens, the latency token's first. Every head that the plan runs
    counts alike. At 7B, 600 positions and answers of 100 tokens a row takes 8 MB while a layer is looked at; no layer's
    full attention is kept.

    queries: (B, Q), columns; asked: (B, Q), bool, which of them count; images: (B, T), bool, columns of image tokens;
    latency_position: (B,); tokens: (B,), supervised tokens of each row.
    """

    first_layer: int
    queries: torch.Tensor
    asked: torch.Tensor
    images: torch.Tensor
    latency_position: torch.Tensor
    tokens: torch.Tensor
    states: torch.Tensor | None = field(default=None, init=False)  # (B, T, D), what enters the first of these layers
    total: torch.Tensor | None = field(default=None, init=False)  # (B, T)

    @classmethod
    def of(cls, batch: EmbeddedBatch, latency_position: torch.Tensor | None, config: Any) -> AnswerAttention:
        """Find the columns in a labelled batch with its latency tokens, for the scorer of a model with this config.

        Raises OptionError where there is no scorer, and where the columns are not known.
        """
        first_layer = getattr(config, "token_scorer_layer", None)
        if first_layer is None or latency_position is None:
            raise OptionError("the model has no token scorer to train; give --token_scorer_layer")
        if batch.labels is None or batch.image_spans is None:
            raise OptionError("a token scorer learns from samples with labels, whose image tokens' columns are known")
        images = torch.zeros_like(batch.labels, dtype=torch.bool)
        for row, spans in enumerate(batch.image_spans):
            for span in spans:
                images[row, span.start : span.end] = True
        supervised = torch.zeros_like(images)
        supervised[:, :-1] = batch.labels[:, 1:] != IGNORE_INDEX
        columns = torch.arange(images.shape[1], device=images.device)[None]
        answers = supervised & (columns >= latency_position[:, None])
        width = max(1, int(answers.sum(dim=1).max()))
        queries = (~answers).int().argsort(dim=1, stable=True)[:, :width]  # those of the answer come first
        return cls(first_layer, queries, answers.gather(1, queries), images, latency_position, supervised.sum(dim=1))

    @torch.no_grad()
    def see(self, layer: Any, hidden: torch.Tensor, keywords: Mapping[str, Any], gates: torch.Tensor | None) -> None:
        """Look at one layer: its input (B, T, D), what it is called with, and which heads run: ``gates`` (B, 2, A)."""
        index = layer.self_attn.layer_idx
        if index < self.first_layer:
            return
        if index == self.first_layer:
            self.states, self.total = hidden.detach(), torch.zeros_like(self.images, dtype=torch.float32)
        weights = attention_weights(layer, hidden, self.queries, keywords)  # (B, H, Q, T)
        weights = weights * self.asked[:, None, :, None]
        if gates is not None:
            heads = gates[:, 0].float().repeat_interleave(weights.shape[1] // gates.shape[2], dim=1)
            weights = weights * heads[:, :, None, None]
        self.total = self.total + weights.sum(dim=(1, 2)) * self.images  # type: ignore[operator]

    def loss(self, scorer: TokenScorer | None, items: torch.Tensor | float | None = None) -> torch.Tensor:
        """Return the cross entropy of the scores' softmax with the attention, in nats, a scalar.

        Rows count by their supervised tokens, as in the labels' own loss; one without an image counts nothing.
        ``items``: the number to divide by, where a step has more tokens than this batch's.
        """
        assert scorer is not None and self.states is not None and self.total is not None  # seen in every forward
        rows = torch.arange(len(self.states), device=self.states.device)
        scores = scorer(self.states, self.states[rows, self.latency_position])
        logs = scores.masked_fill(~self.images, torch.finfo(scores.dtype).min).log_softmax(dim=1)
        seen = self.total.sum(dim=1)
        shares = self.total / seen.clamp(min=torch.finfo(seen.dtype).tiny)[:, None]
        entropies = -(shares * logs.masked_fill(~self.images, 0)).sum(dim=1)
        weights = self.tokens * (seen > 0)
        loss: torch.Tensor = (entropies * weights).sum() / (weights.sum().clamp(min=1) if items is None else items)
        return loss
