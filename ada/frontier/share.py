"""Counts the share of the language model's full prefill that image tokens and units take, in integer arithmetic.

With F(T) the operations of one dense decoder layer over T positions, S units of all layers, of which P are the
prefix's and U are granted:

    share = (P F(front) + U F(late)) / (S F(full))

A prompt has ``full`` positions with all tokens of its images; ``front`` of them enter the decoder, and its later layers
read ``late``. With all image tokens the share is the fraction of units that run.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from ada.cost.products import layer_products
from ada.image_tokens.amount import ImageTokens
from ada.scheduling.execution_plan import ExecutionPlan
from ada.scheduling.units import Units
from llava.protocols import DecoderConfig


@dataclass(frozen=True)
class PromptTokens:
    """Positions of one prompt, text, image tokens and latency token, without padding: 1 <= late <= front <= full.

    full: with all tokens of its images; front: that enter the decoder; late: that its later layers read. known: the
    first ones, of which what the prefix layers compute is known.
    """

    full: int
    front: int
    late: int
    known: int = 0

    @classmethod
    def all_of(cls, positions: int) -> PromptTokens:
        """Return a prompt of which every layer reads all positions."""
        return cls(positions, positions, positions)

    @classmethod
    def with_images(cls, others: int, images: int, front: int, late: int) -> PromptTokens:
        """Return a prompt of ``others`` positions that are no image tokens, and image tokens, summed over its images.

        images: all of them; front: those that enter the decoder; late: those that later layers read.
        """
        return cls(others + images, others + front, others + min(front, late))

    @classmethod
    def under(cls, amount: ImageTokens, others: int, images: Sequence[int]) -> PromptTokens:
        """Return a prompt under an amount that is not ``auto``; images: how many tokens each image has."""
        front = amount.front.of_each(images)
        late = front if amount.late is None else amount.late.of_each(images)
        read = (min(pair) for pair in zip(front, late, strict=True))
        return cls.with_images(others, sum(images), sum(front), sum(read))


@dataclass(frozen=True)
class PrefillShare:
    """Counts shares of one model's prefill.

    linear, attention: a dense layer takes ``linear T + attention T^2`` FLOPs for T positions. first_late_layer: the
    first layer that reads ``late`` positions alone. Where that is P, or before it, the share is exact; where it is
    later, units of the layers in between are counted as if all of them ran, so that no budget is exceeded. min_units:
    tunable units that run under any budget: all of them where there is no planner, and budgets pay for tokens alone.
    """

    units: Units
    linear: int
    attention: int
    first_late_layer: int
    min_units: int = 0

    @classmethod
    def of(
        cls, config: DecoderConfig, units: Units, first_late_layer: int | None = None, min_units: int = 0
    ) -> PrefillShare:
        """Read a dense layer's operations off ``ada.cost``; first_late_layer is P by default."""
        dense = ExecutionPlan.full(1, units.num_switches).layers[0]
        linear, with_one_key = (
            sum(product.flops for product in layer_products(config, dense, units.num_switches, 1, keys))
            for keys in (0, 1)
        )
        first = units.num_prefix_layers if first_late_layer is None else first_late_layer
        return cls(units, linear, with_one_key - linear, first, min_units)

    def layer_flops(self, positions: int) -> int:
        """Return F: the FLOPs of a dense layer over so many positions."""
        return self.linear * positions + self.attention * positions**2

    def of_prefill(self, tokens: PromptTokens, num_units: int) -> float:
        """Return the share that a prompt takes under ``num_units`` tunable units, in addition to the prefix."""
        return self._cost(tokens, num_units) / self._full_cost(tokens)

    def granted(self, fraction: float, tokens: PromptTokens) -> int:
        """Return the maximum of tunable units whose share is within ``fraction``; ``min_units`` where none is.

        With all image tokens this is ``Units.granted``, to the unit: a fraction is rounded as there, in float64.
        """
        limit = self._limit(fraction, tokens)
        choices = range(self.units.tunable + 1)
        fitting = bisect_right(choices, limit, key=lambda num_units: self._cost(tokens, num_units)) - 1
        return max(self.min_units, fitting)

    def is_within(self, fraction: float, tokens: PromptTokens, num_units: int) -> bool:
        """Return whether the share of ``num_units`` is within ``fraction``."""
        return self._cost(tokens, num_units) <= self._limit(fraction, tokens) or (
            self.of_prefill(tokens, num_units) <= fraction
        )

    def minimum(self, tokens: PromptTokens) -> float:
        """Return the minimum reachable share of a prompt, rounded up to a value of four digits that is accepted."""
        return -(-self._cost(tokens, self.min_units) * 10_000 // self._full_cost(tokens)) / 10_000

    def _cost(self, tokens: PromptTokens, num_units: int) -> int:
        """FLOPs, times the units of a layer."""
        running = self.units.prefix + num_units
        at_front = min(running, self.first_late_layer * self.units.per_layer)
        return at_front * self.layer_flops(tokens.front) + (running - at_front) * self.layer_flops(tokens.late)

    def _full_cost(self, tokens: PromptTokens) -> int:
        return self.units.total * self.layer_flops(tokens.full)

    def _limit(self, fraction: float, tokens: PromptTokens) -> int:
        return math.floor(Fraction(self.units.total * fraction) * self.layer_flops(tokens.full))
