"""How a training step draws its budgets and plans, and what it learns from beside the labels.

As published: budgets even over the range, plans drawn with Gumbel noise of scale 1, the labels alone. What the rest
brings is measured by ``scripts/shapes/ablations.sh``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional
from transformers import TrainerCallback

from ada.scheduling.sample_rng import Draws
from ada.scheduling.selection import Noise
from ada.scheduling.units import Units
from llava.constants import IGNORE_INDEX

SANDWICH = (0.25, 0.25)  # of the samples: the least budget, the most; the others are drawn between


@dataclass
class Recipe:
    """budgets: the range, as fractions. sandwich: a quarter of the samples at each end of it (Yu and Huang 2019,
    arXiv 1903.05134, whose every step runs the least, the greatest and random widths). distillation: the weight of the
    model's own answer at full budget as a target beside the labels (the same paper's inplace distillation).
    temperature: of the draws, the Gumbel noise's scale; near 0 training sees the plan that inference runs.
    """

    budgets: tuple[float, float]
    sandwich: bool = False
    distillation: float = 0.0
    temperature: float = 1.0

    def draw_units(self, units: Units, draws: Draws, rows: int) -> torch.Tensor:
        """Random tunable units (rows,), int64, on the unit grid of ``budgets``."""
        least, most = (units.granted(fraction) for fraction in self.budgets)
        drawn = draws.integers(least, most, rows)
        if self.sandwich:
            chance = draws.uniform(rows)
            low, high = SANDWICH
            drawn = drawn.masked_fill(chance < low, least).masked_fill(chance >= 1 - high, most)
        return drawn

    def noise(self, draws: Draws, rows: int, device: torch.device) -> Noise:
        """The draws of this moment's temperature."""
        draw, scale = draws.gumbel(rows, device), self.temperature
        return draw if scale == 1 else lambda shape: draw(shape) * scale


def distance(
    student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor, items: torch.Tensor | float | None = None
) -> torch.Tensor:
    """Kullback-Leibler divergence of the student's next tokens from the teacher's, in nats a supervised token.

    Logits (B, T, V), labels (B, T). ``items``: the tokens to divide by, where a step has more than this batch's.
    """
    supervised = labels[:, 1:] != IGNORE_INDEX
    ours, theirs = (functional.log_softmax(x[:, :-1][supervised].float(), dim=-1) for x in (student, teacher))
    total = functional.kl_div(ours, theirs, reduction="sum", log_target=True)
    return total / (supervised.sum().clamp(min=1) if items is None else items)


class TemperatureSchedule(TrainerCallback):
    """Moves the recipe's temperature from ``start`` to ``end``, straight over the run."""

    def __init__(self, recipe: Recipe, start: float, end: float) -> None:
        self.recipe, self.start, self.end = recipe, start, end

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """From the step's number alone, so that a resumed run goes on where it was."""
        done = state.global_step / max(1, state.max_steps - 1)
        self.recipe.temperature = self.start + (self.end - self.start) * min(1.0, done)
