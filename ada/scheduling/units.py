"""What may be switched on and off, and how many units of it a budget grants: integer arithmetic only."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from llava.errors import OptionError

Kind = Literal["H", "L"]


@dataclass(frozen=True)
class Units:
    """The unit grid of one model.

    ``L`` layers, of which the first ``P`` always run; ``A`` switches of each sort a layer (attention heads and as
    many neuron groups; with grouped-query attention, key-value groups). A unit of kind H is ``rank`` heads together
    with ``rank`` neuron groups of one layer; a unit of kind L is a layer.
    """

    kind: Kind
    num_layers: int
    num_prefix_layers: int
    num_switches: int
    rank: int

    def __post_init__(self) -> None:
        if self.kind not in ("H", "L"):
            raise OptionError(f"scheduler_type is {self.kind!r}; expected 'H' (heads and neurons) or 'L' (layers)")
        if not 0 < self.num_prefix_layers <= self.num_layers:
            raise OptionError(
                f"num_prefix_layers is {self.num_prefix_layers}; expected 1 to {self.num_layers}, "
                "the model's number of layers"
            )
        if self.kind == "H" and (self.rank < 1 or self.num_switches % self.rank):
            raise OptionError(
                f"scheduler_rank is {self.rank}; expected a divisor of {self.num_switches}, the model's number of "
                "key-value heads, so that every unit has the same size"
            )

    @classmethod
    def of(cls, config: Any) -> Units:
        """The grid that a model's config describes."""
        return cls(
            kind=config.scheduler_type,
            num_layers=config.num_hidden_layers,
            num_prefix_layers=config.num_prefix_layers,
            num_switches=config.num_key_value_heads,
            rank=config.scheduler_rank,
        )

    @property
    def num_tunable_layers(self) -> int:
        """``N = L - P``."""
        return self.num_layers - self.num_prefix_layers

    @property
    def per_layer(self) -> int:
        """Units that one layer holds."""
        return 1 if self.kind == "L" else self.num_switches // self.rank

    @property
    def total(self) -> int:
        """Units of the whole model."""
        return self.num_layers * self.per_layer

    @property
    def prefix(self) -> int:
        """Units that always run."""
        return self.num_prefix_layers * self.per_layer

    @property
    def tunable(self) -> int:
        """Units that a scheduler may hand out."""
        return self.total - self.prefix

    def granted(self, budget_fraction: float) -> int:
        """Tunable units under a budget: ``floor(total * budget) - prefix``, at least 0, in float64.

        Python floats are float64; in bfloat16 the product may round up and break the budget.
        """
        return min(self.tunable, max(0, math.floor(self.total * budget_fraction) - self.prefix))

    def fraction(self, tunable_units: int) -> float:
        """The share of all units that ``tunable_units`` beside the prefix make."""
        return (self.prefix + tunable_units) / self.total

    def tunable_of(self, fraction: float) -> int:
        """The other way: tunable units of one of ``fraction``'s values."""
        return round(fraction * self.total) - self.prefix

    def encoding(self, tunable_units: int) -> float:
        """``u`` in [0, 1): what the latency encoder is told."""
        return tunable_units / (self.tunable + 1)
