"""Describes how a training step draws budgets and plans, and what it learns from in addition to the labels.

As published: budgets uniform over the range, plans drawn with Gumbel noise of scale 1, the labels alone. What the
other settings bring is measured by ``scripts/shapes/ablations.sh``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

from ada.image_tokens.amount import Amount, ImageTokens
from ada.scheduling.sample_rng import Draws
from ada.scheduling.selection import Noise
from ada.scheduling.units import Units
from llava.constants import IGNORE_INDEX
from llava.errors import OptionError
from llava.model.answer_logits import answer_logits

SANDWICH = (0.25, 0.25)  # of the samples: the minimum budget, the maximum; the others are drawn between


@dataclass(frozen=True)
class Recipe:
    """Settings of a training step.

    budgets: the range, as fractions. sandwich: a quarter of the samples at each end of it (Yu and Huang 2019,
    arXiv 1903.05134, whose every step runs the minimum, the maximum and random widths). distillation: the weight of
    the model's own answer at full budget as a target next to the labels (the same paper's inplace distillation).
    temperatures: at the start and the end of the run, of the draws, that is the Gumbel noise's scale; near 0 training
    sees the plan that inference runs. image_token_dropout: the minimum share of each image's tokens that a sample
    keeps; half of the samples keep all, the others a random share from it on; None keeps all. image_token_maximum: all
    samples keep a random share from the minimum to it; None as said.
    """

    budgets: tuple[float, float]
    sandwich: bool = False
    distillation: float = 0.0
    temperatures: tuple[float, float] = (1.0, 1.0)
    image_token_dropout: float | None = None
    image_token_maximum: float | None = None

    def draw_units(self, units: Units, draws: Draws, rows: int) -> torch.Tensor:
        """Draw random tunable units (rows,), int64, on the unit grid of ``budgets``."""
        minimum, maximum = (units.granted(fraction) for fraction in self.budgets)
        drawn = draws.integers(minimum, maximum, rows)
        if self.sandwich:
            chance = draws.uniform(rows)
            low, high = SANDWICH
            drawn = drawn.masked_fill(chance < low, minimum).masked_fill(chance >= 1 - high, maximum)
        return drawn

    def draw_image_tokens(self, draws: Draws, rows: int) -> list[ImageTokens]:
        """Draw how many of its images' tokens each row keeps. Raises OptionError where the recipe keeps all."""
        minimum = self.image_token_dropout
        if minimum is None:
            raise OptionError("image_token_dropout is None, so no image tokens are left out")
        drawn = draws.uniform(rows, "image tokens")
        if self.image_token_maximum is None:
            shares = (minimum + 2 * drawn * (1 - minimum)).clamp(max=1.0)  # the upper half: all tokens
        else:
            shares = minimum + drawn * (self.image_token_maximum - minimum)
        return [ImageTokens(Amount(share=share)) for share in shares.tolist()]

    def temperature(self, progress: float) -> float:
        """Return the temperature at ``progress`` in [0, 1] of the run, linear between start and end."""
        start, end = self.temperatures
        return start + (end - start) * min(1.0, progress)

    def noise(self, draws: Draws, rows: int, progress: float = 0.0) -> Noise:
        """Return Gumbel noise at the temperature of ``progress``, drawn on the CPU."""
        draw, scale = draws.gumbel(rows), self.temperature(progress)
        return draw if scale == 1 else lambda shape: draw(shape) * scale


def distance(
    student: torch.Tensor,
    teacher: torch.Tensor,
    labels: torch.Tensor,
    items: torch.Tensor | float | None = None,
    teacher_labels: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the Kullback-Leibler divergence of the student's next tokens from the teacher's, in nats per token.

    Logits (B, T, V), or of answers only, labels (B, T): only supervised tokens count. ``teacher_labels`` (B, T'): those
    of the teacher's positions, where it read other image tokens than the student; the supervised ones are the same in
    both. ``items``: the number to divide by, where a step has more tokens than this batch's.
    """
    ours, theirs = (
        functional.log_softmax(answer_logits(logits, labels if own is None else own).float(), dim=-1)
        for logits, own in ((student, labels), (teacher, teacher_labels))
    )
    total = functional.kl_div(ours, theirs, reduction="sum", log_target=True)
    return total / ((labels[:, 1:] != IGNORE_INDEX).sum().clamp(min=1) if items is None else items)
