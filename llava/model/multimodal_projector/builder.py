"""Builds the projector: image features (N, patches, mm_hidden_size) -> (N, patches, hidden_size)."""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from llava.errors import CheckpointError
from llava.protocols import ProjectorSettings


def mlp_projector(in_size: int, out_size: int, depth: int) -> nn.Sequential:
    """Stack ``depth`` Linears with GELUs between them."""
    layers: list[nn.Module] = [nn.Linear(in_size, out_size)]
    for _ in range(depth - 1):
        layers += [nn.GELU(), nn.Linear(out_size, out_size)]
    return nn.Sequential(*layers)


def build_vision_projector(config: ProjectorSettings, **kwargs: Any) -> nn.Module:
    """Build the projector that ``config.mm_projector_type`` names.

    The names are ``linear`` (also where none is given), ``mlpNx_gelu`` with N Linears, and ``identity``. Raises
    CheckpointError for any other name. Further keywords are accepted and ignored, as upstream does.
    """
    kind = getattr(config, "mm_projector_type", None) or "linear"
    if kind == "linear":
        return nn.Linear(config.mm_hidden_size, config.hidden_size)
    if kind == "identity":
        return nn.Identity()
    if match := re.fullmatch(r"mlp([1-9]\d*)x_gelu", kind):
        return mlp_projector(config.mm_hidden_size, config.hidden_size, int(match.group(1)))
    raise CheckpointError(f"mm_projector_type is {kind!r}; expected linear, identity or mlpNx_gelu (N = 1, 2, ...)")
