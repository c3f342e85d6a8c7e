"""Builds the projector: image features (N, patches, mm_hidden_size) -> (N, patches, hidden_size)."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import nn

from llava.errors import CheckpointError
from llava.protocols import ProjectorSettings


class IdentityMap(nn.Module):
    """Hands features on as they are, where tower and language model have the same width."""

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Return ``x``; what else is given has no effect."""
        return x

    @property
    def config(self) -> dict[str, str]:
        """The field of config.json that names this projector."""
        return {"mm_projector_type": "identity"}


class SimpleResBlock(nn.Module):
    """Adds a two-layer MLP of the normalised features to them; for projectors that are built elsewhere."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pre_norm = nn.LayerNorm(channels)
        self.proj = mlp_projector(channels, channels, depth=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Turn features (..., channels) into features of the same shape, with the normalised ones as the residual."""
        normalised: torch.Tensor = self.pre_norm(x)
        mapped: torch.Tensor = self.proj(normalised)
        return normalised + mapped


def mlp_projector(in_size: int, out_size: int, depth: int) -> nn.Sequential:
    """Stack ``depth`` Linears with GELUs between them."""
    layers: list[nn.Module] = [nn.Linear(in_size, out_size)]
    for _ in range(depth - 1):
        layers += [nn.GELU(), nn.Linear(out_size, out_size)]
    return nn.Sequential(*layers)


def build_vision_projector(config: ProjectorSettings, delay_load: bool = False, **kwargs: Any) -> nn.Module:
    """Build the projector that ``config.mm_projector_type`` names.

    The names are ``linear`` (also where none is given), ``mlpNx_gelu`` with N Linears, and ``identity``. Raises
    CheckpointError for any other name. ``delay_load`` and further keywords have no effect, as upstream.
    """
    kind = getattr(config, "mm_projector_type", None) or "linear"
    if kind == "linear":
        return nn.Linear(config.mm_hidden_size, config.hidden_size)
    if kind == "identity":
        return IdentityMap()
    if match := re.fullmatch(r"mlp([1-9]\d*)x_gelu", kind):
        return mlp_projector(config.mm_hidden_size, config.hidden_size, int(match.group(1)))
    raise CheckpointError(f"mm_projector_type is {kind!r}; expected linear, identity or mlpNx_gelu (N = 1, 2, ...)")
