"""Builds the vision tower that a config names."""

from __future__ import annotations

from typing import Any

from llava.errors import CheckpointError
from llava.model.multimodal_encoder.clip_encoder import CLIPVisionTower, CLIPVisionTowerS2
from llava.protocols import TowerSettings


def build_vision_tower(vision_tower_cfg: TowerSettings, **kwargs: Any) -> CLIPVisionTower:
    """Build the tower that ``mm_vision_tower`` (or ``vision_tower``, in training arguments) names.

    With ``s2`` it reads images at several scales. Raises CheckpointError where neither is set. ``delay_load=True``
    leaves its weights on disk until ``load_model()``.
    """
    name = getattr(vision_tower_cfg, "mm_vision_tower", None) or getattr(vision_tower_cfg, "vision_tower", None)
    if not name:
        raise CheckpointError(
            "no vision tower is named; set mm_vision_tower (or --vision_tower) to a folder or hub name"
        )
    kind = CLIPVisionTowerS2 if getattr(vision_tower_cfg, "s2", False) else CLIPVisionTower
    return kind(name, args=vision_tower_cfg, **kwargs)
