"""Translates how a vision tower is described between LLaVA's checkpoint layout and that of transformers' classes.

A CLIP tower is described alike in both. Of SigLIP, LLaVA-NeXT's checkpoints hold only the layers that are used, under a
config that counts all of the original tower; transformers' classes count the layers that there are, and take the last.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable
from typing import Any

import torch
from transformers import SiglipVisionConfig

from llava.model.checkpoint.hf_names import TOWER
from llava.model.multimodal_encoder.builder import tower_class
from llava.model.multimodal_encoder.clip_encoder import CLIPVisionTower
from llava.model.multimodal_encoder.siglip_encoder import SigLipVisionTower

SIGLIP = SiglipVisionConfig.model_type
VisionConfig = Any  # transformers' CLIPVisionConfig or SiglipVisionConfig


def is_siglip(vision: VisionConfig) -> bool:
    """Return whether a vision config is that of SigLIP, which has no class token."""
    return bool(vision.model_type == SIGLIP)


def select_strategy(vision: VisionConfig, select_feature: str | None) -> str:
    """Return transformers' ``vision_feature_select_strategy``: "default" leaves out the first token, a class token."""
    return "full" if is_siglip(vision) or select_feature == "cls_patch" else "default"


def llava_select_layer(vision: VisionConfig, feature_layer: int) -> int:
    """Return ``mm_vision_select_layer`` for transformers' vision config and ``vision_feature_layer``.

    For a SigLIP of which all layers are used it is -2, as in LLaVA-NeXT's checkpoints, which leave out the last.
    """
    if not is_siglip(vision):
        return feature_layer
    count: int = vision.num_hidden_layers
    used = range(count + 1)[feature_layer]
    return -2 if used == count else used - count - 1


def llava_vision_config(vision: VisionConfig, feature_layer: int, select_layer: int) -> VisionConfig:
    """Return the tower's config in LLaVA's layout, in which ``select_layer`` is the layer that is meant."""
    if not is_siglip(vision) or select_layer >= 0:
        return vision
    described = copy.deepcopy(vision)
    described.num_hidden_layers = range(vision.num_hidden_layers + 1)[feature_layer] - select_layer - 1
    return described


def hub_vision(tower: CLIPVisionTower, names: Iterable[str]) -> tuple[VisionConfig, int]:
    """Return transformers' vision config and ``vision_feature_layer`` for a tower in LLaVA's layout.

    names: of the checkpoint's tensors, in LLaVA's layout. Raises CheckpointError for a layer that the tower lacks.
    """
    used = tower.layers_run
    if not isinstance(tower, SigLipVisionTower):
        return tower.config, tower.select_layer
    layer = re.compile(rf"{re.escape(TOWER)}encoder\.layers\.(\d+)\.")
    numbers = [int(match.group(1)) for match in map(layer.match, names) if match]
    vision = copy.deepcopy(tower.config)
    # No fewer than are used, nor more than the tower has: a checkpoint with others is in error.
    vision.num_hidden_layers = max(used, min(max(numbers, default=-1) + 1, vision.num_hidden_layers))
    has_head = any(name.startswith(f"{TOWER}head.") for name in names)
    if has_head != getattr(vision, "vision_use_head", True):  # not a field of every release
        vision.vision_use_head = has_head
    return vision, used - vision.num_hidden_layers - 1


def expected_tensors(vision: VisionConfig) -> dict[str, torch.Tensor]:
    """Return the tensors, by their names in LLaVA's layout, of a tower as its config describes it."""
    model = tower_class(vision.model_type).model_class(vision)
    return {TOWER + name: tensor for name, tensor in model.state_dict().items()}
