"""Trains under budgets: draws each sample's units, noise and image tokens, adds distillation, logs loss by budget."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ada.scheduling.sample_rng import Draws
from ada.scheduling.units import Units
from ada.train.metrics import loss_by_band
from ada.train.recipe import Recipe, distance
from llava.train.policy import Figure, LossTerm, TrainingPolicy

log = logging.getLogger(__name__)


class ImageTokenTraining(TrainingPolicy):
    """Leaves image tokens out of samples, and distils from the model that reads them all, as a recipe says."""

    drawn = frozenset({"image_tokens", "token_selector"})
    full: Mapping[str, Any] = {"image_tokens": "all"}  # what asks the model for its own best answer

    def __init__(self, recipe: Recipe, selector: str | None = None) -> None:
        self.recipe, self.selector = recipe, selector

    def inputs(self, seed: int, step: int, progress: float, first: int, rows: int) -> Mapping[str, Any]:
        """Draw ``image_tokens`` (rows); nothing where the recipe keeps all.

        Every sample's draws depend on seed, step and its index alone, so that they are the same however a step is cut,
        and in a resumed run.
        """
        if self.recipe.image_token_dropout is None:
            return {}
        drawn = self.recipe.draw_image_tokens(Draws(seed, step, first), rows)
        return {"image_tokens": drawn, "token_selector": self.selector}

    def loss_terms(self, model: nn.Module, inputs: Mapping[str, Any]) -> Sequence[LossTerm]:
        """Distil from the model's own answer with nothing left out, where the recipe asks for it."""
        if not self.recipe.distillation:
            return ()
        with torch.no_grad():
            # Through the wrapped model, so that a sharded one gathers its weights.
            full = model(**{key: value for key, value in inputs.items() if key not in self.drawn}, **self.full)

        def divergence(outputs: Any, items: torch.Tensor | float | None) -> torch.Tensor:
            return self.recipe.distillation * distance(
                outputs.logits, full.logits, outputs.labels, items, teacher_labels=full.labels
            )

        return [divergence]


class BudgetTraining(ImageTokenTraining):
    """Applies a recipe to a model with this unit grid."""

    drawn = ImageTokenTraining.drawn | {"granted_units", "noise"}
    full: Mapping[str, Any] = {**ImageTokenTraining.full, "latency_budget": 1.0}

    def __init__(self, recipe: Recipe, units: Units, selector: str | None = None) -> None:
        super().__init__(recipe, selector)
        self.units = units

    def inputs(self, seed: int, step: int, progress: float, first: int, rows: int) -> Mapping[str, Any]:
        """Draw ``granted_units`` (rows,) and the plans' ``noise``, and ``image_tokens`` where some are left out."""
        draws = Draws(seed, step, first)
        drawn = {
            "granted_units": self.recipe.draw_units(self.units, draws, rows),
            "noise": self.recipe.noise(draws, rows, progress),
        }
        return {**drawn, **super().inputs(seed, step, progress, first, rows)}

    def freeze(self, model: nn.Module) -> None:
        """Freeze a token scorer, of which the labels say nothing."""
        scorer = getattr(model, "token_scorer", None)
        if scorer is not None:
            log.warning("the model's token scorer stays as it is; train it anew with --token_scorer_layer afterwards")
            scorer.requires_grad_(False)

    def figures(self, outputs: Any) -> Mapping[str, Figure]:
        """Return the loss by budget band, where the batch ran under budgets."""
        if getattr(outputs, "granted_units", None) is None:
            return {}
        return loss_by_band(self.units, outputs)
