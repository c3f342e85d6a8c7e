"""Declares the types that the overlay's functions take: a LLaVA under budgets, and its config."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeGuard

from llava.protocols import LlavaModel, MultimodalConfig

if TYPE_CHECKING:
    from ada.execution.narrow_cache import NarrowCache
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


def is_adaptive(model: Any) -> TypeGuard[AdaptiveModel]:
    """Return whether ``model`` takes latency budgets: it has a scheduler, or was made adaptive for untrained plans."""
    return hasattr(model, "units")
