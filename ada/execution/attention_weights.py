"""Computes the attention that some positions pay, from a decoder layer's weights and its input.

Whatever attention implementation the layer runs with, and for no other position: all of a prompt's weights would take
quadratic memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ada.execution.column_masks import checked


def attention_weights(
    layer: Any, hidden: torch.Tensor, queries: torch.Tensor, keywords: Mapping[str, Any]
) -> torch.Tensor:
    """Return the attention (B, H, Q, T), float32, that the columns ``queries`` (B, Q) pay to each column.

    layer: a Llama-like decoder layer; hidden: (B, T, D), what enters it; keywords: what it is called with. Raises
    OptionError for a mask that is no tensor.
    """
    attention, normed = layer.self_attn, layer.input_layernorm(hidden)
    asking = attention.q_proj(_taken(normed, queries)).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)
    keys = attention.k_proj(normed).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)
    turns = [part.expand(len(hidden), -1, -1) for part in keywords["position_embeddings"]]
    asking = _rotated(asking, *(_taken(part, queries)[:, None] for part in turns))
    keys = _rotated(keys, *(part[:, None] for part in turns)).repeat_interleave(asking.shape[1] // keys.shape[1], dim=1)
    weights = (asking.float() @ keys.float().transpose(2, 3)) * attention.scaling
    seen = _seen(checked(keywords.get("attention_mask")), queries, hidden.shape[1])
    shares: torch.Tensor = weights.masked_fill(~seen, torch.finfo(weights.dtype).min).softmax(dim=-1)
    return shares


def _taken(values: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Columns (B, Q) of values (B, T, C): (B, Q, C)."""
    return values.gather(1, columns[..., None].expand(-1, -1, values.shape[2]))


def _rotated(states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """States (B, H, T, d) under rotary positions (Su et al. 2021, arXiv 2104.09864), halves paired as in Llama."""
    first, second = states.chunk(2, dim=-1)
    return states * cos + torch.cat([-second, first], dim=-1) * sin


def _seen(mask: torch.Tensor | None, queries: torch.Tensor, width: int) -> torch.Tensor:
    """Which of ``width`` columns each query attends to: (B, 1, Q, T), bool. ``mask``: in a form of ``column_masks``."""
    if mask is not None and mask.dim() == 4:
        rows = mask[..., :width].expand(len(queries), -1, -1, -1)
        rows = rows.gather(2, queries[:, None, :, None].expand(-1, rows.shape[1], -1, width))
        return rows if rows.dtype == torch.bool else rows >= 0
    causal = torch.arange(width, device=queries.device) <= queries[:, None, :, None]
    return causal if mask is None else causal & mask[:, None, None, :width].bool()
