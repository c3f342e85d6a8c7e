"""Chooses a run's training policy by its flags and model: budgets, image tokens alone, or the token scorer alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ada.config import ADAPTIVE_TYPES
from ada.train.arguments import AdaArguments
from ada.train.budget_training import BudgetTraining, ImageTokenTraining
from ada.train.importance import start_by_importance
from ada.train.plain_llava import leave_tokens_out
from ada.train.scorer_training import TokenScorerTraining
from llava.errors import OptionError
from llava.train.policy import TrainingPolicy


def policy_of(model: Any, flags: AdaArguments) -> TrainingPolicy | None:
    """Return the flags' part in the training of ``model``; None for a plain LLaVA that keeps all image tokens.

    A plain LLaVA that does not is made to take ``image_tokens`` in its forward.
    """
    if flags.token_scorer_layer is not None:
        return TokenScorerTraining(flags.recipe(model.units), model.units)
    if model.config.model_type in ADAPTIVE_TYPES:
        if flags.neuron_order is not None:
            if flags.scheduler_type is None:
                raise OptionError(
                    f"--neuron_order is {flags.neuron_order!r}, and the model has a scheduler already, which knows its "
                    "neurons as they are; give the LLaVA that it was trained on, and --scheduler_type"
                )
            start_by_importance(model, Path(flags.neuron_order))
        return BudgetTraining(flags.recipe(model.units), model.units, flags.token_selector)
    if flags.image_token_dropout is None:
        return None
    leave_tokens_out(model)
    return ImageTokenTraining(flags.recipe(), flags.token_selector)
