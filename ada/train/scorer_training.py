"""Trains a token scorer alone: the frozen model's answers show which image tokens they attend to.

One forward under a drawn budget, with the plan that inference makes, gives both sides: the states that the scorer reads
and the attention that it is to foresee (``ada.image_tokens.answer_attention``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from ada.config import ADAPTIVE_TYPES
from ada.image_tokens.token_scorer import scorer_of
from ada.scheduling.units import Units
from ada.train.arguments import AdaArguments
from ada.train.budget_training import BudgetTraining
from ada.train.recipe import Recipe
from llava.errors import OptionError
from llava.train.arguments import ModelArguments, TrainingArguments
from llava.train.policy import Figure

FLAG = "--token_scorer_layer"


def add_scorer(config: Any, arguments: Mapping[type, Any]) -> tuple[str, ...]:
    """Give a config the scorer that the flags ask for, in place; return how the names of its tensors begin.

    Raises OptionError for a model without a scheduler, a layer that is none, and flags that train something else.
    """
    flags: AdaArguments = arguments[AdaArguments]
    if flags.token_scorer_layer is None:
        return ()
    if config.model_type not in ADAPTIVE_TYPES or flags.scheduler_type is not None:
        raise OptionError(
            f"{FLAG} is {flags.token_scorer_layer!r}, but the model has no trained scheduler, whose latency token a "
            "scorer reads; train one first (finetune_ada_heads.sh, finetune_ada_layers.sh), and give that as the model"
        )
    _check_trained_alone(flags, arguments)
    config.token_scorer_layer = _layer(flags.token_scorer_layer, config.num_prefix_layers)
    scorer_of(config)  # raises for a layer that the decoder does not have
    return ("token_scorer.",)


def _layer(text: str, num_prefix_layers: int) -> int:
    if text == "P":
        return num_prefix_layers
    try:
        return int(text)
    except ValueError:
        raise OptionError(f"{FLAG} is {text!r}; expected a layer's number, or P") from None


def _check_trained_alone(flags: AdaArguments, arguments: Mapping[type, Any]) -> None:
    training, model = arguments.get(TrainingArguments), arguments.get(ModelArguments)
    others = {
        "--lora_enable": getattr(training, "lora_enable", False),
        "--tune_mm_mlp_adapter": getattr(model, "tune_mm_mlp_adapter", False),
        "--image_token_dropout": flags.image_token_dropout is not None,
        "--distillation_weight": flags.distillation_weight > 0,
    }
    given = [name for name, value in others.items() if value]
    if given:
        raise OptionError(f"{FLAG} trains a token scorer and nothing else; leave {given[0]} out")


class TokenScorerTraining(BudgetTraining):
    """Draws budgets, keeps all image tokens, and freezes all but the scorer."""

    def __init__(self, recipe: Recipe, units: Units) -> None:
        super().__init__(replace(recipe, temperatures=(0.0, 0.0)), units)  # the plans of inference: without noise

    def freeze(self, model: nn.Module) -> None:
        """Freeze everything but the scorer."""
        model.requires_grad_(False)
        model.token_scorer.requires_grad_(True)

    def inputs(self, seed: int, step: int, progress: float, first: int, rows: int) -> Mapping[str, Any]:
        """Draw what ``BudgetTraining`` draws, and ask for the scorer's loss."""
        return {**super().inputs(seed, step, progress, first, rows), "learn_token_scores": True}

    def figures(self, outputs: Any) -> Mapping[str, Figure]:
        """Return nothing: the loss itself is the scorer's."""
        return {}
