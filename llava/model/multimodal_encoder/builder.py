"""Builds the vision tower that a config names, of the kind that the tower's own config says."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from transformers import PretrainedConfig

from llava.errors import CheckpointError
from llava.model.checkpoint.folder import CONFIG_FILE
from llava.model.checkpoint.quiet import quiet_loading
from llava.model.checkpoint.weights_io import read_json
from llava.model.multimodal_encoder.clip_encoder import CLIPVisionTower, CLIPVisionTowerS2
from llava.model.multimodal_encoder.siglip_encoder import SigLipVisionTower
from llava.model.multimodal_encoder.tower_files import comes_with, folder_of_checkpoint, resolve_tower
from llava.protocols import TowerSettings

# model_type of a vision model, or of the text-and-image model that holds one -> tower
TOWERS: dict[str, type[CLIPVisionTower]] = {
    "clip_vision_model": CLIPVisionTower,
    "clip": CLIPVisionTower,
    "siglip_vision_model": SigLipVisionTower,
    "siglip": SigLipVisionTower,
}


def build_vision_tower(vision_tower_cfg: TowerSettings, **kwargs: Any) -> CLIPVisionTower:
    """Build the tower that ``mm_vision_tower`` (or ``vision_tower``, in training arguments) names.

    Its kind is the ``model_type`` in the tower's own config; with ``s2`` a CLIP tower reads images at several scales.
    Raises CheckpointError where no tower is named, and for a kind that is neither CLIP nor SigLIP.
    ``delay_load=True`` leaves its weights on disk until ``load_model()``.
    """
    name = getattr(vision_tower_cfg, "mm_vision_tower", None) or getattr(vision_tower_cfg, "vision_tower", None)
    if not name:
        raise CheckpointError(
            "no vision tower is named; set mm_vision_tower (or --vision_tower) to a folder or hub name"
        )
    kind = tower_class(_model_type(name, vision_tower_cfg), name)
    if getattr(vision_tower_cfg, "s2", False):
        if kind is not CLIPVisionTower:
            raise CheckpointError(f"s2 needs a CLIP vision tower; {name!r} is a {kind.__name__}")
        kind = CLIPVisionTowerS2
    return kind(name, args=vision_tower_cfg, **kwargs)


@contextlib.contextmanager
def tower_of(config: Any, folders: Sequence[Path]) -> Iterator[Callable[[Any], None]]:
    """Within it, the config names the tower's folder, where that lies near one of ``folders``.

    For a model of adapters: while transformers makes it, a relative name would mean a folder near the base. Yields a
    function that gives the model, once it is made, the name that the config had.
    """
    name = getattr(config, "mm_vision_tower", None)
    folder = next((folder for folder in folders if name and comes_with(name, folder)), None)
    if folder is not None:
        config.mm_vision_tower = resolve_tower(str(name), folder)

    def rename(model: Any) -> None:
        if folder is not None and hasattr(model, "get_vision_tower"):
            model.config.mm_vision_tower = name
            tower = model.get_vision_tower()
            tower.vision_tower_name, tower.checkpoint_folder = name, folder

    try:
        yield rename
    finally:
        if folder is not None:
            config.mm_vision_tower = name


def tower_class(model_type: str, name: str = "vision_config") -> type[CLIPVisionTower]:
    """Return the class of a tower of this ``model_type``. name: of the tower, for the CheckpointError of another."""
    if model_type not in TOWERS:
        raise CheckpointError(
            f"the vision tower {name!r} has model_type {model_type!r}; expected one of {', '.join(TOWERS)}"
        )
    return TOWERS[model_type]


def _model_type(name: str, config: TowerSettings) -> str:
    """Return the ``model_type`` in the tower's own config.

    Where that config cannot be read it is CLIP's: the config is looked for again once the tower is needed, which a
    language model's part alone never does, and only then is its absence an error.
    """
    try:
        fields = _config_fields(resolve_tower(name, folder_of_checkpoint(config)))
    except (CheckpointError, OSError):
        return "clip_vision_model"
    return fields.get("model_type") or "clip_vision_model"


def _config_fields(location: str) -> dict[str, Any]:
    """Read the config.json of a folder or hub name; the hub is asked only for one that was never read before."""
    if (file := Path(location, CONFIG_FILE)).is_file():
        return read_json(file)
    with quiet_loading():
        try:
            fields, _ = PretrainedConfig.get_config_dict(location, local_files_only=True)
        except OSError:
            fields, _ = PretrainedConfig.get_config_dict(location)
    return dict(fields)
