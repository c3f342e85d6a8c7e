"""Finds the lowest time budget that a prompt reaches: its cheapest plan, on the cheapest amount of image tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ada.frontier.choice import candidate_amounts
from ada.frontier.share import PromptTokens
from ada.image_tokens.amount import ImageTokens
from ada.latency.design import image_tokens_of
from ada.latency.latency_model import Workload
from ada.latency.ttft_predictor import TTFTPredictor
from ada.protocols import AdaptiveModel


@dataclass(frozen=True)
class Amounts:
    """The amounts of image tokens that ``auto`` chooses from, on a model with ``image_tokens`` tokens an image."""

    image_tokens: int
    candidates: Sequence[ImageTokens]

    def workloads(self, workload: Workload) -> list[Workload]:
        """Return the same prompt, which has all of its image tokens, with each of the amounts."""
        images = (self.image_tokens,) * workload.num_images
        others = workload.num_tokens - sum(images)
        prompts = (PromptTokens.under(amount, others, images) for amount in self.candidates)
        return [Workload.of(tokens, workload.num_units, workload.num_images) for tokens in prompts]


def minimum_ms(predictor: TTFTPredictor, workload: Workload, amounts: Amounts | None = None) -> float:
    """Return the predicted p95 of a prompt's cheapest plan, with the cheapest amount of image tokens."""
    cheapest = replace(workload, num_units=0)
    choices = [cheapest] if amounts is None else amounts.workloads(cheapest)
    return min(predictor.first_token_ms(choice) for choice in choices)


def amounts_of(model: AdaptiveModel) -> Amounts:
    """Return the amounts of image tokens that budgets of a loaded model choose from."""
    has_scorer = getattr(model, "token_scorer", None) is not None
    minimum = getattr(model.config, "image_token_dropout", None)
    return Amounts(image_tokens_of(model), candidate_amounts(has_scorer, minimum))
