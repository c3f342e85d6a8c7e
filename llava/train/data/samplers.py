"""Batches of like length: less padding; and, for mixed data, of one modality."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler


def grouped_by_length(lengths: Sequence[int], batch: int, generator: torch.Generator | None = None) -> list[int]:
    """All indices in random batches of ``batch`` samples; within a run of 50 batches, samples of like length meet."""
    order = torch.randperm(len(lengths), generator=generator).tolist()
    run = batch * 50
    batches: list[list[int]] = []
    for start in range(0, len(order), run):
        chunk = sorted(order[start : start + run], key=lambda i: lengths[i], reverse=True)
        batches += [chunk[i : i + batch] for i in range(0, len(chunk), batch)]
    whole = [b for b in batches if len(b) == batch]
    rest = [b for b in batches if len(b) != batch]  # at most the last one; it goes last, so that batches stay whole
    shuffled = [whole[i] for i in torch.randperm(len(whole), generator=generator).tolist()]
    return [index for b in shuffled + rest for index in b]


def grouped_by_modality(lengths: Sequence[int], batch: int, generator: torch.Generator | None = None) -> list[int]:
    """As above, each batch with pictures (length > 0) or without (length < 0); what is left over is mixed."""
    groups = [[i for i, n in enumerate(lengths) if n > 0], [i for i, n in enumerate(lengths) if n <= 0]]
    batches, rest = [], []
    for group in groups:
        order = [group[i] for i in grouped_by_length([abs(lengths[i]) for i in group], batch, generator)]
        pieces = [order[i : i + batch] for i in range(0, len(order), batch)]
        batches += [p for p in pieces if len(p) == batch]
        rest += [i for p in pieces if len(p) != batch for i in p]
    shuffled = [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]
    return [index for b in shuffled for index in b] + rest


class LengthGroupedSampler(Sampler[int]):
    """A new order, grouped by modality, every epoch. ``batch`` is samples a step over all processes."""

    def __init__(self, batch: int, lengths: Sequence[int], seed: int) -> None:
        self.batch, self.lengths, self.seed = batch, lengths, seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        return iter(grouped_by_modality(self.lengths, self.batch, generator))

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer, so that a resumed run sees the order that it would have seen."""
        self.epoch = epoch
