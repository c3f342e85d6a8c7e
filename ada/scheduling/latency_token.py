"""The latency token: a granted number of units as an embedding, and its place in the sequence."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from llava.constants import IGNORE_INDEX

ENCODING_SIZE = 256
_HALF = ENCODING_SIZE // 2


def sinusoid(u: torch.Tensor) -> torch.Tensor:
    """``u`` (B,) in [0, 1) -> (B, 256) float32: sines, then cosines, of ``2 pi u / 10000^(i/128)``, i in 0..127."""
    frequencies = 10000.0 ** (-torch.arange(_HALF, dtype=torch.float32, device=u.device) / _HALF)
    angles = 2 * math.pi * u.float()[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class LatencyEncoder(nn.Module):
    """``u`` (B,) -> latency token embedding (B, 1, D). The keys ``net.{0,1,3}`` are the published format's."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.LayerNorm(ENCODING_SIZE),
            nn.Linear(ENCODING_SIZE, hidden_size),
            nn.GELU(),
            nn.Linear(hidden_size, hidden_size),
        )

    def forward(self, u: torch.Tensor) -> torch.Tensor:
        dtype = next(self.net.parameters()).dtype
        return self.net(sinusoid(u).to(dtype))[:, None]


@dataclass(frozen=True)
class EmbeddedBatch:
    """A batch as it enters the decoder. ``T`` positions; masks are None where nothing is padded or labelled."""

    embeds: torch.Tensor  # (B, T, D)
    attention_mask: torch.Tensor | None  # (B, T)
    position_ids: torch.Tensor | None  # (B, T)
    labels: torch.Tensor | None  # (B, T)

    @property
    def width(self) -> int:
        """``T``, padding included."""
        return self.embeds.shape[1]

    def inputs(self) -> dict[str, torch.Tensor | None]:
        """The keywords of the decoder's forward."""
        return {
            "inputs_embeds": self.embeds,
            "attention_mask": self.attention_mask,
            "position_ids": self.position_ids,
            "labels": self.labels,
        }


def _row_end(mask: torch.Tensor) -> torch.Tensor:
    """(B, T) -> (B,): the position behind each row's last real token, on either padding side."""
    width = mask.shape[1]
    return width - mask.bool().flip(1).int().argmax(dim=1)


def token_place(sequence: EmbeddedBatch) -> torch.Tensor:
    """(B,): where the latency token goes.

    With labels, right behind the last real position whose label is ignored, that is in front of the last answer,
    and at the row's start where no label is ignored. Without labels, behind the row's last real token.
    """
    batch, width = sequence.embeds.shape[:2]
    mask = sequence.attention_mask
    real = torch.ones(batch, width, dtype=torch.bool, device=sequence.embeds.device) if mask is None else mask.bool()
    if sequence.labels is None:
        return _row_end(real)
    ignored = real & (sequence.labels == IGNORE_INDEX)
    first_real = real.int().argmax(dim=1)
    return torch.where(ignored.any(dim=1), _row_end(ignored), first_real)


def insert(sequence: EmbeddedBatch, token: torch.Tensor, place: torch.Tensor) -> EmbeddedBatch:
    """Put ``token`` (B, 1, D) at ``place`` (B,) of each row: T grows by one, its own label is ignored.

    The token's position is counted on from its neighbours: positions in front of it stay, those behind move by one.
    """
    batch, width = sequence.embeds.shape[:2]
    old = torch.arange(width, device=place.device)[None]
    target = old + (old >= place[:, None])  # (B, T): the new column of every old one

    def widen(values: torch.Tensor, filler: torch.Tensor) -> torch.Tensor:
        grown = values.new_empty(batch, width + 1, *values.shape[2:])
        index = target.view(batch, width, *[1] * (values.dim() - 2)).expand_as(values)
        grown = grown.scatter(1, index, values)
        hole = place.view(batch, 1, *[1] * (values.dim() - 2)).expand(batch, 1, *values.shape[2:])
        return grown.scatter(1, hole, filler.to(grown.dtype).expand_as(hole))

    one = torch.ones(batch, 1, device=place.device)
    mask, positions, labels = sequence.attention_mask, sequence.position_ids, sequence.labels
    if positions is not None:
        before = positions.gather(1, (place[:, None] - 1).clamp(min=0)) + (place[:, None] > 0)
        moved = old >= place[:, None]
        positions = widen(positions + (moved if mask is None else moved & mask.bool()), before)
    if mask is not None:
        mask = widen(mask, one)
    if labels is not None:
        labels = widen(labels, one * IGNORE_INDEX)
    return EmbeddedBatch(widen(sequence.embeds, token), mask, positions, labels)
