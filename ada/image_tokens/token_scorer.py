"""Scores image tokens by what the latency token has read of image, question and budget: the learned token scorer."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from llava.errors import OptionError

RANK = 64  # of the product; 2 x 64 rows of D weights are less than a thousandth of a layer's at 7B


class TokenScorer(nn.Module):
    """Scores each image token by <A LN(h_i), B LN(h_latency)> / sqrt(rank) + c LN(h_i).

    h_i and h_latency: hidden states of the image token and of the latency token as they enter one layer. The first term
    is what this question asks for, the second what any question would.
    """

    def __init__(self, hidden_size: int, rank: int = RANK) -> None:
        super().__init__()
        self.image_proj = nn.Linear(hidden_size, rank)  # A
        self.latency_proj = nn.Linear(hidden_size, rank)  # B
        self.content = nn.Linear(hidden_size, 1)  # c

    def forward(self, image_states: torch.Tensor, latency_state: torch.Tensor) -> torch.Tensor:
        """Score hidden states (..., n, D) for latency tokens' states (..., D): (..., n), float32."""
        images, latency = (functional.layer_norm(x, x.shape[-1:]) for x in (image_states, latency_state))
        asked = self.latency_proj(latency).float()[..., None, :]  # (..., 1, rank)
        pairs = (self.image_proj(images).float() * asked).sum(dim=-1)  # no matrix product: autocast would round it
        scores: torch.Tensor = pairs / asked.shape[-1] ** 0.5 + self.content(images)[..., 0].float()
        return scores


def scorer_of(config: Any) -> TokenScorer | None:
    """Return the scorer that a config's ``token_scorer_layer`` asks for, with new weights; None without the key.

    Raises OptionError for a layer that the decoder does not have after its first.
    """
    layer = getattr(config, "token_scorer_layer", None)
    if layer is None:
        return None
    if isinstance(layer, bool) or not isinstance(layer, int) or not 0 < layer < config.num_hidden_layers:
        raise OptionError(
            f"token_scorer_layer is {layer!r}; expected 1 to {config.num_hidden_layers - 1}, a layer after the first "
            "one: the tokens have to have read each other"
        )
    return TokenScorer(config.hidden_size)
