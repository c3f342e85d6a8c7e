"""Declares the flags that the overlay adds to ``llava/train/train.py``."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

from ada.budget import LatencyBudget
from ada.config import ADAPTIVE, ADAPTIVE_TYPES, AdaLlavaConfig
from ada.image_tokens.selectors import DEFAULT_SELECTOR, SELECTORS, selector_named
from ada.scheduling.units import Units
from ada.train.recipe import Recipe
from llava.errors import OptionError

# Flags that need a model with a scheduler.
BUDGET_FLAGS = (
    "num_prefix_layers",
    "scheduler_rank",
    "latency_budget",
    "planner",
    "scheduler_input",
    "scheduler_lr",
    "neuron_order",
    "scheduler_temperature",
    "budget_sampling",
)


@dataclass
class AdaArguments:
    """Train a scheduler with the model, where ``--scheduler_type`` is given, or with image tokens left out."""

    scheduler_type: str | None = field(
        default=None, metadata={"help": "H: switch attention heads and MLP neurons; L: switch whole layers"}
    )
    num_prefix_layers: int | None = field(
        default=None, metadata={"help": "layers that always run; by default half of the model's"}
    )
    scheduler_rank: int | None = field(
        default=None, metadata={"help": "heads, and neuron groups, in a unit of kind H; by default 8"}
    )
    latency_budget: str | None = field(
        default=None,
        metadata={
            "help": "range to draw each sample's budget from, as 0.5:1.0; by default from the model's minimum to 1"
        },
    )
    planner: str | None = field(
        default=None, metadata={"help": "train under an untrained planner (even, last, random) instead of learning"}
    )
    scheduler_input: str | None = field(
        default=None,
        metadata={"help": "what the scheduler reads: content (the default), or the latency token's embedding: budget"},
    )
    scheduler_lr: float | None = field(default=None, metadata={"help": "learning rate of the scheduler alone"})
    neuron_order: str | None = field(
        default=None,
        metadata={
            "help": "file of ada.train.importance: the model is trained with its neurons in that order, and the "
            "scheduler starts with what heads and neurons matter"
        },
    )
    scheduler_temperature: str = field(
        default="1:1",
        metadata={
            "help": "START:END of the temperature of the plans' random draws, linear over the run; 1:1 as published"
        },
    )
    budget_sampling: str = field(
        default="uniform",
        metadata={"help": "uniform, or sandwich: a quarter of the samples at either end of the budget range"},
    )
    distillation_weight: float = field(
        default=0.0,
        metadata={"help": "weight of the model's own answer at full budget as a target in addition to the labels"},
    )

    image_token_dropout: float | None = field(
        default=None,
        metadata={
            "help": "minimum share of each image's tokens that a sample keeps, as 0.1: half of the samples keep all, "
            "the others a random share from it on"
        },
    )
    image_token_maximum: float | None = field(
        default=None,
        metadata={
            "help": "maximum share of each image's tokens that a sample keeps, as 0.3, where none is to keep all: short"
            " samples train faster"
        },
    )
    token_selector: str | None = field(
        default=None, metadata={"help": "which image tokens stay: " + ", ".join(SELECTORS) + "; by default salient"}
    )
    token_scorer_layer: str | None = field(
        default=None,
        metadata={
            "help": "train a scorer of image tokens, and nothing else, in a model with a scheduler; it scores them as "
            "this layer is entered: a number, or P for the first after those that always run"
        },
    )

    def __post_init__(self) -> None:
        if self.budget_sampling not in ("uniform", "sandwich"):
            raise OptionError(f"--budget_sampling is {self.budget_sampling!r}; expected uniform or sandwich")
        if self.scheduler_input not in (None, "content", "budget"):
            raise OptionError(f"--scheduler_input is {self.scheduler_input!r}; expected content or budget")
        if not 0 <= self.distillation_weight < math.inf:
            raise OptionError(f"--distillation_weight is {self.distillation_weight}; expected 0 or more")
        if self.scheduler_lr is not None and not 0 <= self.scheduler_lr < math.inf:
            raise OptionError(f"--scheduler_lr is {self.scheduler_lr}; expected 0 or more")
        if self.image_token_dropout is not None and not 0 < self.image_token_dropout < 1:
            raise OptionError(f"--image_token_dropout is {self.image_token_dropout}; expected a share in (0, 1)")
        low, high = self.image_token_dropout, self.image_token_maximum
        if high is not None and (low is None or not low <= high <= 1):
            raise OptionError(
                f"--image_token_maximum is {high}; expected a share from --image_token_dropout, which it needs, to 1"
            )
        if self.token_selector is not None:
            selector_named(self.token_selector)
            if self.image_token_dropout is None:
                raise OptionError(
                    f"--token_selector is {self.token_selector!r}, which needs --image_token_dropout: the share of "
                    "an image's tokens that a sample keeps at the minimum"
                )
        self.temperatures()

    def temperatures(self) -> tuple[float, float]:
        """Read ``--scheduler_temperature`` as numbers (start, end). Raises OptionError for anything else."""
        start, _, end = self.scheduler_temperature.partition(":")
        try:
            found = float(start), float(end or start)
        except ValueError:
            found = math.nan, math.nan
        if not all(0 <= value < math.inf for value in found):
            raise OptionError(
                f"--scheduler_temperature is {self.scheduler_temperature!r}; expected START:END, each 0 or more"
            )
        return found

    def recipe(self, units: Units | None = None) -> Recipe:
        """Return the settings of a training step; ``units``: the grid of a model with a scheduler.

        Raises OptionError for a budget range out of reach.
        """
        budgets = (1.0, 1.0) if units is None else self.budget_range(units)
        sandwich = self.budget_sampling == "sandwich"
        tokens = self.image_token_dropout, self.image_token_maximum
        return Recipe(budgets, sandwich, self.distillation_weight, self.temperatures(), *tokens)

    def apply(self, config: Any) -> None:
        """Make a config AdaLLaVA's, in place, where ``--scheduler_type`` is given or where it already is.

        What the model learns of image tokens is kept in any LLaVA's: ``image_token_dropout``, ``token_selector``.
        Raises OptionError for flags of budgets without a scheduler.
        """
        if self.image_token_dropout is not None:
            config.image_token_dropout = self.image_token_dropout
            config.token_selector = self.token_selector or DEFAULT_SELECTOR
        if self.scheduler_type is None and config.model_type not in ADAPTIVE_TYPES:
            self._check_without_scheduler()
            return
        if config.model_type not in ADAPTIVE_TYPES:
            if config.model_type not in ADAPTIVE:
                raise OptionError(
                    f"--scheduler_type is {self.scheduler_type!r}, and this model's type {config.model_type!r}; "
                    f"latency budgets are for {', '.join(ADAPTIVE)}"
                )
            defaults = AdaLlavaConfig(num_hidden_layers=config.num_hidden_layers)
            config.model_type = ADAPTIVE[config.model_type].model_type
            for name in ("num_prefix_layers", "scheduler_type", "scheduler_rank", "token_selecting"):
                setattr(config, name, getattr(defaults, name))
        for name in ("scheduler_type", "num_prefix_layers", "scheduler_rank", "planner", "scheduler_input"):
            value = getattr(self, name)
            if value is not None:
                setattr(config, name, value)

    def _check_without_scheduler(self) -> None:
        """Raise OptionError for flags that would have no effect on a model without a scheduler."""
        if self.token_scorer_layer is not None:
            return  # refused with another reason
        names = [*BUDGET_FLAGS, *(["distillation_weight"] if self.image_token_dropout is None else [])]
        defaults = {one.name: one.default for one in fields(self)}
        given = [name for name in names if getattr(self, name) != defaults[name]]
        if given:
            raise OptionError(
                f"--{given[0]} is {getattr(self, given[0])!r}, but the model has no scheduler; give --scheduler_type H "
                f"(or L), or leave {', '.join(f'--{name}' for name in given)} out"
            )

    def budget_range(self, units: Units) -> tuple[float, float]:
        """Read ``--latency_budget LOW:HIGH`` as fractions, by default from the prefix's share to 1.

        Raises OptionError for anything else, and for a range below the model's minimum.
        """
        minimum = units.fraction(0)
        if self.latency_budget is None:
            return minimum, 1.0
        low_text, colon, high_text = self.latency_budget.partition(":")
        low = LatencyBudget.parse(low_text).fraction
        high = LatencyBudget.parse(high_text).fraction if colon else low
        if low > high or high < minimum:
            raise OptionError(
                f"--latency_budget is {self.latency_budget!r}; expected LOW:HIGH with LOW <= HIGH and HIGH at least "
                f"{minimum:g}, the share of the layers that always run"
            )
        return low, high
