"""Scores image tokens as a later layer is entered, when they have seen the question: FastV, and the learned scorer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ada.cost.products import LateReading, fastv_products, scorer_products
from ada.execution.attention_weights import attention_weights
from ada.execution.late_tokens import LateSelector
from ada.image_tokens.selector_names import LATE_SELECTORS
from llava.errors import OptionError

FASTV_LAYER = 2  # the paper's K: tokens are left out after this many layers


@dataclass(frozen=True)
class FastV:
    """Keeps the image tokens that the prompt's last position attends to most: FastV, arXiv 2403.06764.

    The attention is that of the layer before the first one that reads fewer tokens, averaged over its heads, computed
    from its weights whatever attention implementation, or plan, the model runs with. Under a latency budget the last
    position is the latency token's. asks: the last positions' columns (rows,), which padding or a given answer may
    follow; by default the last column.
    """

    reads: int
    asks: torch.Tensor | None = None

    def scores(self, layer: Any, hidden: torch.Tensor, keywords: Mapping[str, Any]) -> torch.Tensor:
        """Return the last position's attention (B, T) to each column of ``hidden`` (B, T, D)."""
        rows, width = hidden.shape[:2]
        asks = torch.tensor([width - 1]) if self.asks is None else self.asks
        last = asks.to(hidden.device).repeat_interleave(rows // len(asks))[:, None]
        return attention_weights(layer, hidden, last, keywords).mean(dim=1)[:, 0]


@dataclass(frozen=True)
class LearnedScorer:
    """Keeps the image tokens that a trained scorer expects the answer to attend to.

    scorer: image states (B, T, D) and the latency token's state (B, D) -> scores (B, T); token_position: the latency
    token's columns (rows,).
    """

    reads: int
    scorer: Any
    token_position: torch.Tensor

    def scores(self, layer: Any, hidden: torch.Tensor, keywords: Mapping[str, Any]) -> torch.Tensor:
        """Return the scorer's scores (B, T) of the columns of ``hidden`` (B, T, D)."""
        beams = len(hidden) // len(self.token_position)
        columns = self.token_position.to(hidden.device).repeat_interleave(beams)
        latency_state = hidden[torch.arange(len(hidden), device=hidden.device), columns]
        scores: torch.Tensor = self.scorer(hidden, latency_state)
        return scores.float()


def late_reading(name: str, model: Any, positions: int, late: int) -> LateReading:
    """Return what the operations of a prompt of ``positions`` depend on, where later layers read ``late`` of them."""
    if name == "fastv":
        return LateReading(fastv_layer(model.config), late, fastv_products(model.config, positions))
    return LateReading(
        int(model.config.token_scorer_layer), late, scorer_products(model.config, model.token_scorer, positions)
    )


def fastv_layer(config: Any) -> int:
    """Return the first layer that reads fewer tokens under FastV."""
    return min(FASTV_LAYER, int(config.num_hidden_layers) - 1)


def late_selector(
    name: str, model: Any, token_position: torch.Tensor | None, last: torch.Tensor | None = None
) -> tuple[int, LateSelector]:
    """Return a late selector by name, and the first layer that reads what it keeps.

    token_position: the latency token's columns (rows,), None for a model without a scheduler; last: those of the
    prompts' last positions, by default the last column. Raises OptionError for a name that is none, and for a model
    that has no scorer.
    """
    if name == "fastv":
        first = fastv_layer(model.config)
        return first, FastV(first - 1, last)
    if name != "learned":
        raise OptionError(f"the late token selector is {name!r}; expected one of {', '.join(LATE_SELECTORS)}")
    scorer = getattr(model, "token_scorer", None)
    if scorer is None or token_position is None:
        raise OptionError(
            "the token selector is 'learned', and this checkpoint has no token scorer; train one with "
            "scripts/v1_5/finetune_token_scorer.sh, or choose fastv"
        )
    first = int(model.config.token_scorer_layer)
    return first, LearnedScorer(first, scorer, token_position)
