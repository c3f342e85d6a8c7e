"""Lets plug-ins take part in training: inputs of the model's forward, terms of the loss, figures to log."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from llava.plugins import merged

LossTerm = Callable[[Any, Any], torch.Tensor]
"""Outputs of the model's forward, and the tokens of the step (None for this batch's) -> a scalar to add to the loss."""
Figure = tuple[float, int]
"""A mean over one batch, and how many values it is the mean of (at least 1)."""


class TrainingPolicy:
    """One plug-in's part in a run. The methods here do nothing."""

    def freeze(self, model: nn.Module) -> None:
        """Freeze what this run is not to train, after the shell has set what its own flags say, in place."""

    def inputs(self, seed: int, step: int, progress: float, first: int, rows: int) -> Mapping[str, Any]:
        """Return keyword arguments of the model's forward for one batch, in addition to the batch.

        seed: the run's; step: optimizer steps done; progress: their share of the run, in [0, 1]; first: the index of
        the batch's first sample among all samples of the step, whatever processes and accumulated passes they are
        spread over; rows: samples of the batch.
        """
        return {}

    def loss_terms(self, model: nn.Module, inputs: Mapping[str, Any]) -> Sequence[LossTerm]:
        """Return terms to add to the loss; called before ``model(**inputs)``, which must be called as it is given."""
        return ()

    def figures(self, outputs: Any) -> Mapping[str, Figure]:
        """Return figures of one batch; the mean over all their values is logged next to the loss."""
        return {}


class Policies(TrainingPolicy):
    """All plug-ins' policies as one."""

    def __init__(self, parts: Sequence[TrainingPolicy] = ()) -> None:
        self.parts = parts

    def freeze(self, model: nn.Module) -> None:
        """Freeze what any plug-in does not train."""
        for part in self.parts:
            part.freeze(model)

    def inputs(self, seed: int, step: int, progress: float, first: int, rows: int) -> Mapping[str, Any]:
        """Merge the plug-ins' inputs."""
        return merged([part.inputs(seed, step, progress, first, rows) for part in self.parts])

    def loss_terms(self, model: nn.Module, inputs: Mapping[str, Any]) -> Sequence[LossTerm]:
        """Collect the plug-ins' terms."""
        return [term for part in self.parts for term in part.loss_terms(model, inputs)]

    def figures(self, outputs: Any) -> Mapping[str, Figure]:
        """Merge the plug-ins' figures."""
        return merged([part.figures(outputs) for part in self.parts])
