"""Reads what a vision tower's class token attends to, from hidden states that the tower computes anyway."""

from __future__ import annotations

from typing import Any

import torch

from llava.errors import OptionError
from llava.model.multimodal_encoder.clip_encoder import CLIPVisionTower
from llava.model.multimodal_encoder.states import TowerOutputs


def check_class_token(tower: Any, selector: str) -> None:
    """Raise OptionError for a vision tower without a class token that attends to all patches of an image."""
    if type(tower) is CLIPVisionTower:
        return
    raise OptionError(
        f"the token selector is {selector!r}, which reads what the class token of a CLIP tower attends to; the vision "
        f"tower {tower.vision_tower_name!r} is a {type(tower).__name__}, which has none for an image. Choose salient, "
        "divprune or grid"
    )


def reading_layer(tower: Any) -> tuple[int, Any]:
    """Return the layer whose attention is read, and its number: the one after the selected one.

    Where the selected layer is the last one it is that layer itself.
    """
    layers = tower.vision_tower.vision_model.encoder.layers
    number = min(tower.layers_run, len(layers) - 1)
    return number, layers[number]


def queries_and_keys(tower: Any, outputs: TowerOutputs) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the class token's queries (N, 1, C) and all keys (N, 1 + P, C) in ``reading_layer``."""
    number, layer = reading_layer(tower)
    normed = layer.layer_norm1(outputs.hidden_states[number])
    return layer.self_attn.q_proj(normed[:, :1]), layer.self_attn.k_proj(normed)


def class_attention(tower: Any, outputs: TowerOutputs) -> torch.Tensor:
    """Return what the class token attends to (N, P), the mean over heads, for each feature that the tower gives.

    The class token itself is among them where ``mm_vision_select_feature`` is "cls_patch".
    """
    attention = reading_layer(tower)[1].self_attn
    queries, keys = (
        part.float().view(*part.shape[:2], attention.num_heads, -1).transpose(1, 2)
        for part in queries_and_keys(tower, outputs)
    )
    weights = (queries @ keys.transpose(2, 3)) * attention.head_dim**-0.5  # (N, H, 1, 1 + P)
    scores: torch.Tensor = weights.softmax(dim=-1).mean(dim=1)[:, 0]
    return scores[:, 1:] if tower.select_feature == "patch" else scores
