"""Trains under budgets: draws each sample's units and noise, adds distillation, logs the loss by budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ada.scheduling.sample_rng import Draws
from ada.scheduling.units import Units
from ada.train.metrics import loss_by_band
from ada.train.recipe import Recipe, distance
from llava.train.policy import LossTerm, TrainingPolicy


class ImageTokenTraining(TrainingPolicy):
    """Leaves image tokens out of samples, as a recipe says."""

    def __init__(self, recipe: Recipe, selector: str | None = None) -> None:
        self.recipe, self.selector = recipe, selector

    def inputs(self, seed: int, step: int, progress: float, first: int, rows: int) -> Mapping[str, Any]:
        """Draw ``image_tokens`` (rows); nothing where the recipe keeps all. Each sample's draw is its own."""
        if self.recipe.image_token_dropout is None:
            return {}
        drawn = self.recipe.draw_image_tokens(Draws(seed, step, first), rows)
        return {"image_tokens": drawn, "token_selector": self.selector}


class BudgetTraining(TrainingPolicy):
    """Applies a recipe to a model with this unit grid."""

    def __init__(self, recipe: Recipe, units: Units, selector: str | None = None) -> None:
        self.recipe, self.units = recipe, units
        self.tokens = ImageTokenTraining(recipe, selector)

    def inputs(self, seed: int, step: int, progress: float, first: int, rows: int) -> Mapping[str, Any]:
        """Draw ``granted_units`` (rows,) and the plans' ``noise``, and ``image_tokens`` where some are left out.

        Every sample's draws depend on seed, step and its index alone, so that they are the same however a step is cut,
        and in a resumed run.
        """
        draws = Draws(seed, step, first)
        drawn = {
            "granted_units": self.recipe.draw_units(self.units, draws, rows),
            "noise": self.recipe.noise(draws, rows, progress),
        }
        return {**drawn, **self.tokens.inputs(seed, step, progress, first, rows)}

    def loss_terms(self, model: nn.Module, inputs: Mapping[str, Any]) -> Sequence[LossTerm]:
        """Distil from the model's own answer at full budget, where the recipe asks for it."""
        if not self.recipe.distillation:
            return ()
        drawn = {"granted_units", "noise"}
        with torch.no_grad():
            # Through the wrapped model, so that a sharded one gathers its weights.
            full = model(**{key: value for key, value in inputs.items() if key not in drawn}, latency_budget=1.0)

        def divergence(outputs: Any, items: torch.Tensor | float | None) -> torch.Tensor:
            return self.recipe.distillation * distance(outputs.logits, full.logits, outputs.labels, items)

        return [divergence]

    def figures(self, outputs: Any) -> Mapping[str, float]:
        """Return the loss by budget band, where the batch ran under budgets."""
        if getattr(outputs, "granted_units", None) is None:
            return {}
        return loss_by_band(self.units, outputs)
