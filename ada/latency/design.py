"""Draws the workloads that a calibration times: prompt lengths, granted units and images."""

from __future__ import annotations

import random
from dataclasses import dataclass

from ada.latency.latency_model import Workload
from ada.protocols import AdaptiveModel
from llava.model.sequence_length import context_length

MIN_TOKENS, MAX_TOKENS = 32, 1024
HELD_OUT_EVERY = 4  # workloads 0, 4, 8, ... are not fitted
NO_UNITS, ALL_UNITS, ENDS_EVERY = 1, 5, 8  # workloads 1, 9, ... run no tunable unit, 5, 13, ... all; all are fitted


def image_tokens_of(model: AdaptiveModel) -> int:
    """Return the positions that an image takes; 0 for a model without a vision tower."""
    tower = model.get_vision_tower()
    return 0 if tower is None else int(tower.num_image_tokens)


@dataclass(frozen=True)
class Design:
    """Ranges to draw workloads from.

    A prompt has ``min_tokens`` to ``max_tokens`` positions. image_tokens: positions of an image, 0 for a model without
    a vision tower. num_units: tunable units.
    """

    min_tokens: int
    max_tokens: int
    image_tokens: int
    num_units: int

    @classmethod
    def of(cls, model: AdaptiveModel, min_tokens: int = MIN_TOKENS) -> Design:
        """Return the ranges of a loaded model: up to the end of its context."""
        return cls(
            min_tokens=min_tokens,
            max_tokens=min(MAX_TOKENS, context_length(model.config)),
            image_tokens=image_tokens_of(model),
            num_units=model.units.tunable,
        )

    @property
    def has_images(self) -> bool:
        """Whether an image and a short question fit in a prompt."""
        return 0 < self.image_tokens < self.max_tokens - MIN_TOKENS

    def draw(self, count: int, seed: int = 0) -> list[Workload]:
        """Draw ``count`` workloads, the same ones for the same seed.

        Lengths are uniform on a logarithmic scale, units and images uniform. One workload in eight runs no tunable
        unit and one all of them, so that a fit need not extrapolate.
        """
        rng = random.Random(seed)
        return [self._draw(rng, number) for number in range(count)]

    def _draw(self, rng: random.Random, number: int) -> Workload:
        num_images = int(self.has_images and rng.random() < 0.5)
        low, high = self.min_tokens, self.max_tokens
        if num_images:
            low = max(low, MIN_TOKENS + self.image_tokens)
        num_tokens = round(low * (high / low) ** rng.random())
        num_units = rng.randint(0, self.num_units)
        if number % ENDS_EVERY == NO_UNITS:
            num_units = 0
        elif number % ENDS_EVERY == ALL_UNITS:
            num_units = self.num_units
        return Workload(num_tokens, num_units, num_images)
