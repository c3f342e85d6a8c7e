"""Draws the workloads that a calibration times: prompt lengths, granted units and images."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from ada.latency.latency_model import Workload
from ada.protocols import AdaptiveModel
from llava.model.sequence_length import context_length

MIN_TOKENS, MAX_TOKENS = 32, 1024
MAX_TEXT = 256  # positions that may go with an image of many tokens
MIN_TEXT = 16  # positions that are no image tokens, where a part of an image's tokens is left out
ROWS = (1, 2, 4, 8)  # of decode steps
HELD_OUT_EVERY = 4  # workloads 0, 4, 8, ... are not fitted
NO_UNITS, ALL_UNITS, ENDS_EVERY = 1, 5, 8  # workloads 1, 9, ... run no tunable unit, 5, 13, ... all; all are fitted


def image_tokens_of(model: AdaptiveModel) -> int:
    """Return the positions that an image takes; 0 for a model without a vision tower."""
    tower = model.get_vision_tower()
    return 0 if tower is None else int(tower.num_image_tokens)


def image_tokens_read(workload: Workload, image_tokens: int) -> tuple[int, int]:
    """Return how many of an image's tokens enter the decoder, and how many its later layers read.

    image_tokens: all of them. Where some are left out, as much of the prompt is image as leaves ``MIN_TEXT`` positions.
    """
    front = image_tokens
    if workload.num_selected:
        front = max(1, min(image_tokens - 1, workload.num_tokens - MIN_TEXT))
    return front, front - (workload.num_tokens - workload.rest_tokens)


@dataclass(frozen=True)
class Design:
    """Ranges to draw workloads from.

    A prompt has ``min_tokens`` to ``max_tokens`` positions. image_tokens: positions of an image, 0 for a model without
    a vision tower. num_units: tunable units. selects: whether image tokens can be left out before the decoder; late:
    whether later layers can read fewer than enter it.
    """

    min_tokens: int
    max_tokens: int
    image_tokens: int
    num_units: int
    selects: bool = True
    late: bool = False

    @classmethod
    def of(cls, model: AdaptiveModel, min_tokens: int = MIN_TOKENS) -> Design:
        """Return the ranges of a loaded model: up to the end of its context."""
        image_tokens = image_tokens_of(model)
        longest = max(MAX_TOKENS, image_tokens + MAX_TEXT)
        return cls(
            min_tokens=min_tokens,
            max_tokens=min(longest, context_length(model.config)),
            image_tokens=image_tokens,
            num_units=model.units.tunable,
            selects=not getattr(model, "merges_image_tokens", False),
            late=getattr(model, "token_scorer", None) is not None,
        )

    @property
    def has_images(self) -> bool:
        """Whether an image and a short question fit in a prompt."""
        return 0 < self.image_tokens < self.max_tokens - MIN_TOKENS

    def draw(self, count: int, seed: int = 0) -> list[Workload]:
        """Draw ``count`` workloads, the same ones for the same seed.

        Lengths are uniform on a logarithmic scale, units and images uniform. One workload in eight runs no tunable
        unit and one all of them, so that a fit need not extrapolate. Of the workloads with an image, half leave out a
        part of its tokens, and a third, where later layers can, read fewer from there on.
        """
        rng = random.Random(seed)
        return [self._draw(rng, number) for number in range(count)]

    def draw_steps(self, count: int, seed: int = 0) -> list[Workload]:
        """Draw ``count`` workloads of decode steps: several rows, all under one plan, contexts as in prompts."""
        rng = random.Random(f"steps/{seed}")
        low, high = self.min_tokens, self.max_tokens
        drawn = []
        for number in range(count):
            rows, context = ROWS[number % len(ROWS)], round(low * (high / low) ** rng.random())
            num_units = (0, self.num_units, rng.randint(0, self.num_units))[number // len(ROWS) % 3]
            drawn.append(Workload(rows * context, num_units, 0, rows=rows))
        return drawn

    def _draw(self, rng: random.Random, number: int) -> Workload:
        num_images = int(self.has_images and rng.random() < 0.5)
        num_selected = int(num_images and self.selects and self.image_tokens > 1 and rng.random() < 0.5)
        low, high = self.min_tokens, self.max_tokens
        if num_images and not num_selected:
            low = max(low, MIN_TOKENS + self.image_tokens)
        num_tokens = round(low * (high / low) ** rng.random())
        num_units = rng.randint(0, self.num_units)
        if number % ENDS_EVERY == NO_UNITS:
            num_units = 0
        elif number % ENDS_EVERY == ALL_UNITS:
            num_units = self.num_units
        drawn = Workload(num_tokens, num_units, num_images, num_selected=num_selected)
        front, _ = image_tokens_read(drawn, self.image_tokens)
        if not (self.late and num_images and front > 1 and rng.random() < 1 / 3):
            return drawn
        return replace(drawn, late_tokens=num_tokens - rng.randint(1, front - 1))
