"""Samplers of batches of similar length, for less padding, and of one modality."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import Sampler
from transformers import TrainerCallback, TrainerState


def grouped_by_length(lengths: Sequence[int], batch: int, generator: torch.Generator | None = None) -> list[int]:
    """Return all indices in random batches of ``batch`` samples of similar length.

    The samples are shuffled, and sorted by length within each 50 batches.
    """
    order = torch.randperm(len(lengths), generator=generator).tolist()
    run = batch * 50
    batches: list[list[int]] = []
    for start in range(0, len(order), run):
        chunk = sorted(order[start : start + run], key=lambda i: lengths[i], reverse=True)
        batches += [chunk[i : i + batch] for i in range(0, len(chunk), batch)]
    complete = [b for b in batches if len(b) == batch]
    rest = [b for b in batches if len(b) != batch]  # at most one; it goes last, so that no batch straddles two of these
    shuffled = [complete[i] for i in torch.randperm(len(complete), generator=generator).tolist()]
    return [index for b in shuffled + rest for index in b]


def grouped_by_modality(lengths: Sequence[int], batch: int, generator: torch.Generator | None = None) -> list[int]:
    """Return all indices in random batches of similar length, each with images (length > 0) or without (length < 0).

    The samples that fill no batch of their modality are mixed, at the end.
    """
    groups = [[i for i, n in enumerate(lengths) if n > 0], [i for i, n in enumerate(lengths) if n <= 0]]
    batches, rest = [], []
    for group in groups:
        order = [group[i] for i in grouped_by_length([abs(lengths[i]) for i in group], batch, generator)]
        pieces = [order[i : i + batch] for i in range(0, len(order), batch)]
        batches += [p for p in pieces if len(p) == batch]
        rest += [i for p in pieces if len(p) != batch for i in p]
    shuffled = [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]
    return [index for b in shuffled for index in b] + rest


class ModalityGroupedSampler(Sampler[int]):
    """Samples in a new order every epoch, grouped by modality and length.

    batch: samples of one optimizer step, over all processes. lengths: negative for samples without an image.
    """

    def __init__(self, batch: int, lengths: Sequence[int], seed: int) -> None:
        self.batch, self.lengths, self.seed = batch, lengths, seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        return iter(grouped_by_modality(self.lengths, self.batch, generator))

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which seeds the order; the trainer calls this, so that a resumed run has the same order."""
        self.epoch = epoch


class EpochCallback(TrainerCallback):  # type: ignore[misc]
    """Sets the epoch of the samples' order before the trainer skips the batches that a resumed run has done.

    In several processes the loader that skips them wraps the sampler once more than ``set_epoch`` reaches: every
    resumed epoch would have the order of the first.
    """

    def on_epoch_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Set it on the loader as it was prepared, ``train_dataloader``."""
        loader: Any = kwargs.get("train_dataloader")
        if hasattr(loader, "set_epoch"):
            loader.set_epoch(int(state.epoch or 0))  # a fraction where the run was stopped within the epoch
