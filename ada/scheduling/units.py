"""Counts what may be switched on and off, and how many units of it a budget grants, in integer arithmetic."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from llava.errors import OptionError

if TYPE_CHECKING:
    import torch

    from ada.protocols import AdaptiveConfig

Kind = Literal["H", "L"]


@dataclass(frozen=True)
class Units:
    """Unit grid of one model.

    ``L`` layers, of which the first ``P`` always run; a layer has ``A`` attention heads (with grouped-query attention,
    key-value groups) and as many neuron groups to switch. A unit of kind H is ``rank`` heads together with ``rank``
    neuron groups of one layer; a unit of kind L is a layer.
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
    def of(cls, config: AdaptiveConfig) -> Units:
        """Read the grid from a model's config."""
        return cls(
            kind=config.scheduler_type,  # type: ignore[arg-type]  # checked in __post_init__
            num_layers=config.num_hidden_layers,
            num_prefix_layers=config.num_prefix_layers,
            num_switches=config.num_key_value_heads,
            rank=config.scheduler_rank,
        )

    @property
    def num_tunable_layers(self) -> int:
        """Number of layers after the prefix: ``N = L - P``."""
        return self.num_layers - self.num_prefix_layers

    @property
    def per_layer(self) -> int:
        """Units of one layer: 1 of kind L, A/rank of kind H."""
        return 1 if self.kind == "L" else self.num_switches // self.rank

    @property
    def total(self) -> int:
        """Units of all layers, prefix included."""
        return self.num_layers * self.per_layer

    @property
    def prefix(self) -> int:
        """Units of the prefix layers, which always run."""
        return self.num_prefix_layers * self.per_layer

    @property
    def tunable(self) -> int:
        """Units that a scheduler may switch on."""
        return self.total - self.prefix

    def granted(self, budget_fraction: float) -> int:
        """Return the tunable units under a budget: ``floor(total * budget) - prefix``, at least 0, in float64.

        Python floats are float64; in bfloat16 the product may round up and break the budget.
        """
        return min(self.tunable, max(0, math.floor(self.total * budget_fraction) - self.prefix))

    def fraction(self, tunable_units: int) -> float:
        """Return the share of all units that the prefix and ``tunable_units`` are."""
        return (self.prefix + tunable_units) / self.total

    def tunable_of(self, fraction: float) -> int:
        """Return the tunable units of one of ``fraction``'s values: its inverse."""
        return round(fraction * self.total) - self.prefix

    def encoding(self, tunable_units: torch.Tensor) -> torch.Tensor:
        """Return ``u`` (B,) in [0, 1), which the latency encoder reads, of granted tunable units (B,)."""
        return tunable_units / (self.tunable + 1)
