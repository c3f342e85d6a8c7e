"""Builds the vision tower that a config names."""

from __future__ import annotations

from typing import Any

from llava.errors import CheckpointError
from llava.model.multimodal_encoder.clip_encoder import CLIPVisionTower
from llava.protocols import TowerSettings


def build_vision_tower(config: TowerSettings, **kwargs: Any) -> CLIPVisionTower:
    """Build the tower that ``config.mm_vision_tower`` (or ``vision_tower``, in training arguments) names.

    Raises CheckpointError where neither is set. ``delay_load=True`` leaves its weights on disk until ``load_model()``.
    """
    name = getattr(config, "mm_vision_tower", None) or getattr(config, "vision_tower", None)
    if not name:
        raise CheckpointError(
            "no vision tower is named; set mm_vision_tower (or --vision_tower) to a folder or hub name"
        )
    return CLIPVisionTower(name, args=config, **kwargs)
