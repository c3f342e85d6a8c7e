"""Flags that the overlay adds to ``llava/train/train.py``."""

from __future__ import annotations

from dataclasses import dataclass, field

from ada.budget import LatencyBudget
from ada.units import Units
from llava.errors import OptionError


@dataclass
class AdaArguments:
    """Train a scheduler with the model. Nothing here applies while ``--scheduler_type`` is not given."""

    scheduler_type: str | None = field(
        default=None, metadata={"help": "H: switch attention heads and MLP neurons; L: switch whole layers"}
    )
    num_prefix_layers: int | None = field(
        default=None, metadata={"help": "layers that always run; by default half of the model's"}
    )
    scheduler_rank: int | None = field(
        default=None, metadata={"help": "heads, and neuron groups, to a unit of kind H; by default 8"}
    )
    latency_budget: str | None = field(
        default=None,
        metadata={"help": "range that each sample's budget is drawn from, as 0.5:1.0; by default what the model can"},
    )
    planner: str | None = field(
        default=None, metadata={"help": "train under an untrained planner (even, last, random) instead of learning"}
    )

    def budget_range(self, units: Units) -> tuple[float, float]:
        """``--latency_budget LOW:HIGH`` as fractions, by default from the prefix's share to 1.

        Raises ``OptionError`` for a range that is none, or that lies below what the model can reach.
        """
        least = units.fraction(0)
        if self.latency_budget is None:
            return least, 1.0
        low_text, colon, high_text = self.latency_budget.partition(":")
        low = LatencyBudget.parse(low_text).fraction
        high = LatencyBudget.parse(high_text).fraction if colon else low
        if low > high or high < least:
            raise OptionError(
                f"--latency_budget is {self.latency_budget!r}; expected LOW:HIGH with LOW <= HIGH and HIGH at least "
                f"{least:g}, the share of the layers that always run"
            )
        return low, high
