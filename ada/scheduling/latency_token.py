"""Encodes granted units as the latency token's embedding, and inserts it into the sequence."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import nn

from llava.constants import IGNORE_INDEX
from llava.model.multimodal.embedded_batch import EmbeddedBatch

ENCODING_SIZE = 256
_HALF = ENCODING_SIZE // 2


def sinusoid(u: torch.Tensor) -> torch.Tensor:
    """Encode ``u`` (B,) in [0, 1) as (B, 256) float32.

    Sines, then cosines, of ``2 pi u / 10000^(i/128)`` for i in 0..127 (Vaswani et al. 2017, arXiv 1706.03762).
    """
    frequencies = 10000.0 ** (-torch.arange(_HALF, dtype=torch.float32, device=u.device) / _HALF)
    angles = 2 * math.pi * u.float()[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class LatencyEncoder(nn.Module):
    """Maps ``u`` to the latency token's embedding. The keys ``net.{0,1,3}`` are those of the published format."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.LayerNorm(ENCODING_SIZE),
            nn.Linear(ENCODING_SIZE, hidden_size),
            nn.GELU(),
            nn.Linear(hidden_size, hidden_size),
        )

    def forward(self, u: torch.Tensor) -> torch.Tensor:
        """Encode ``u`` (B,) in [0, 1) as latency tokens (B, 1, D)."""
        dtype = next(self.net.parameters()).dtype
        token: torch.Tensor = self.net(sinusoid(u).to(dtype))
        return token[:, None]


def _row_end(mask: torch.Tensor) -> torch.Tensor:
    """(B, T) -> (B,): the position after each row's last real token, on either padding side."""
    width = mask.shape[1]
    return width - mask.bool().flip(1).int().argmax(dim=1)


def token_position(sequence: EmbeddedBatch) -> torch.Tensor:
    """Return the column (B,) at which the latency token is inserted.

    With labels, right after the last real position whose label is ignored, that is before the last answer, and at the
    row's start where no label is ignored. Without labels, after the row's last real token.
    """
    batch, width = sequence.embeds.shape[:2]
    mask = sequence.attention_mask
    real = torch.ones(batch, width, dtype=torch.bool, device=sequence.embeds.device) if mask is None else mask.bool()
    if sequence.labels is None:
        return _row_end(real)
    ignored = real & (sequence.labels == IGNORE_INDEX)
    first_real = real.int().argmax(dim=1)
    return torch.where(ignored.any(dim=1), _row_end(ignored), first_real)


def answer_position(sequence: EmbeddedBatch) -> torch.Tensor:
    """Return the column (B,) right before the last answer, where the latency token goes.

    It is ``token_position``, the published rule, but what follows the last answer does not count: by that rule ChatML's
    line break after an answer would put the token after the answer, too, which would never see it.
    """
    if sequence.labels is None:
        return token_position(sequence)
    width, mask = sequence.labels.shape[1], sequence.attention_mask
    real = torch.ones_like(sequence.labels, dtype=torch.bool) if mask is None else mask.bool()
    end = _row_end(real & (sequence.labels != IGNORE_INDEX))  # the width, where there is no answer
    real = real & (torch.arange(width, device=end.device) < end[:, None])
    return token_position(replace(sequence, attention_mask=real.to(torch.long)))


def last_position(sequence: EmbeddedBatch) -> torch.Tensor:
    """Return the column (B,) of each prompt's last position, before its last answer: an inserted latency token's."""
    return (answer_position(sequence) - 1).clamp(min=0)


def insert(sequence: EmbeddedBatch, token: torch.Tensor, column: torch.Tensor) -> EmbeddedBatch:
    """Insert ``token`` (B, 1, D) at ``column`` (B,) of each row: T grows by one, its own label is ignored.

    The token continues the positions of its neighbours: positions before it stay, those after it move by one.
    """
    batch, width = sequence.embeds.shape[:2]
    old = torch.arange(width, device=column.device)[None]
    target = old + (old >= column[:, None])  # (B, T): the new column of every old one

    def widen(values: torch.Tensor, filler: torch.Tensor) -> torch.Tensor:
        grown = values.new_empty(batch, width + 1, *values.shape[2:])
        index = target.view(batch, width, *[1] * (values.dim() - 2)).expand_as(values)
        grown = grown.scatter(1, index, values)
        hole = column.view(batch, 1, *[1] * (values.dim() - 2)).expand(batch, 1, *values.shape[2:])
        return grown.scatter(1, hole, filler.to(grown.dtype).expand_as(hole))

    one = torch.ones(batch, 1, device=column.device)
    mask, positions, labels = sequence.attention_mask, sequence.position_ids, sequence.labels
    if positions is not None:
        before = positions.gather(1, (column[:, None] - 1).clamp(min=0)) + (column[:, None] > 0)
        moved = old >= column[:, None]
        positions = widen(positions + (moved if mask is None else moved & mask.bool()), before)
    if mask is not None:
        mask = widen(mask, one)
    if labels is not None:
        labels = widen(labels, one * IGNORE_INDEX)
    embeds = widen(sequence.embeds, token)
    return replace(sequence, embeds=embeds, attention_mask=mask, position_ids=positions, labels=labels)
