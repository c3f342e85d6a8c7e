"""Declares the types that the overlay's functions take: a LLaVA under budgets, and its config."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeGuard

from llava.protocols import LlavaModel, MultimodalConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ada.budget import Budget
    from ada.execution.narrow_cache import NarrowCache
    from ada.frontier.choice import Prompt
    from ada.frontier.share import PrefillShare
    from ada.image_tokens.amount import ImageTokens
    from ada.latency.ttft_predictor import TTFTPredictor
    from ada.scheduling.scheduler import Scheduler
    from ada.scheduling.units import Units


class AdaptiveConfig(MultimodalConfig, Protocol):
    """A LLaVA's config with the published format's keys."""

    scheduler_type: str
    num_prefix_layers: int
    scheduler_rank: int
    token_selecting: str
    tie_word_embeddings: bool


class AdaptiveModel(LlavaModel, Protocol):
    """A LLaVA whose layers after the first P run as a plan says (``ada.model.modeling.AdaLlavaCausalLM``)."""

    units: Units
    scheduler: Scheduler | None
    narrow_cache: NarrowCache

    def get_model(self) -> Any:
        """Return the decoder with vision tower and projector."""

    def default_amount(self, budget: Budget | None, token_selector: str | None = None) -> ImageTokens:
        """Return what of an image is read where nothing says so."""

    def decided_amounts(
        self,
        prompts: Sequence[Prompt],
        amounts: Sequence[ImageTokens],
        budgets: Sequence[Budget | None],
        token_selector: str | None = None,
        planner: str | None = None,
        ttft_predictor: TTFTPredictor | None = None,
    ) -> tuple[list[ImageTokens], PrefillShare]:
        """Return what prompts read under their budgets, and what counts shares of their prefill."""


def is_adaptive(model: Any) -> TypeGuard[AdaptiveModel]:
    """Return whether ``model`` takes latency budgets: it has a scheduler, or was made adaptive for untrained plans."""
    return hasattr(model, "units")
