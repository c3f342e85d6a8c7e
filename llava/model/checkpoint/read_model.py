"""Reads config and weights of a full checkpoint into a model, and names every tensor that does not fit."""

from __future__ import annotations

import copy
import functools
import logging
from collections.abc import Callable
from typing import Any

from transformers import AutoConfig, GenerationConfig, PretrainedConfig, PreTrainedModel

from llava.model.checkpoint import hf_layout, hf_vision
from llava.model.checkpoint.byte_order_mark import has_mark, read_without_marks
from llava.model.checkpoint.folder import CONFIG_FILE, CheckpointFolder
from llava.model.checkpoint.quiet import quiet_loading
from llava.model.checkpoint.weights_io import listed, read_json, report_misfits, settings_of
from llava.model.families import BEFORE_1_5, FAMILIES
from llava.model.multimodal_encoder.builder import tower_class
from llava.model.multimodal_encoder.clip_encoder import CLIPVisionTower
from llava.model.multimodal_encoder.tower_files import IN_CHECKPOINT

log = logging.getLogger(__name__)

GENERATION_FILE = "generation_config.json"


def read_fields(folder: CheckpointFolder) -> dict[str, Any]:
    """Return a checkpoint's config.json; of one in transformers' own layout, what LLaVA's would hold."""
    if not folder.hub_layout:
        return with_family(copy.deepcopy(folder.fields))
    families = {f.decoder_type: f.config_class.model_type for f in FAMILIES if f.in_hub_layout}
    return hf_layout.llava_fields(folder, families)


def with_family(fields: dict[str, Any]) -> dict[str, Any]:
    """Return config.json's fields with the family's ``model_type``.

    Where they have that of the first LLaVAs, as LLaVA-OneVision's do, ``architectures`` names the family.
    """
    if fields.get("model_type") != BEFORE_1_5:
        return fields
    named = fields.get("architectures") or ()
    for family in FAMILIES:
        if family.model_class.__name__ in named:
            return {**fields, "model_type": family.config_class.model_type}
    return fields


def make_config(config_class: type[PretrainedConfig], folder: CheckpointFolder, fields: dict[str, Any]) -> Any:
    """Make an instance of ``config_class`` from what ``read_fields`` returned for ``folder``.

    ``AutoConfig`` gives transformers' own class for the folder. Raises CheckpointError where values cannot be used.
    """
    with settings_of(folder.config_file), quiet_loading():
        if config_class is AutoConfig:
            config = read_without_marks(folder.path, AutoConfig.from_pretrained)
        else:
            config = config_class.from_dict(copy.deepcopy(fields))
        config._name_or_path = str(folder.path)
        return config


def read_model(
    model_class: type[PreTrainedModel],
    folder: CheckpointFolder,
    may_miss: Callable[[str], bool] | None = None,
    **kwargs: Any,
) -> Any:
    """Call ``from_pretrained`` on a full checkpoint in either layout; every misfit is a CheckpointError.

    may_miss: whether the tensor of a name need not be in the folder; it starts afresh, or is filled from elsewhere.
    """
    weights = folder.weights()  # opens every file: damage and pickled code end here
    if (folder.path / GENERATION_FILE).is_file():
        read_json(folder.path / GENERATION_FILE)  # transformers would go on without a damaged one, and say nothing
    keys = frozenset(weights)
    log.debug("%d tensors in %s", len(keys), folder.path)
    source: Any = folder.path
    if folder.hub_layout:
        source, kwargs = None, {**kwargs, "state_dict": weights.read()}
    with settings_of(folder.config_file), quiet_loading():
        load = functools.partial(
            model_class.from_pretrained, source, output_loading_info=True, ignore_mismatched_sizes=True, **kwargs
        )
        try:
            model, found = load()
        except OSError:
            if not has_mark(folder.config_file):  # which transformers reads once more, for how to generate
                raise
            model, found = load(generation_config=_generation_config(folder))
    generation = folder.path / GENERATION_FILE
    if generation.is_file() and (folder.hub_layout or has_mark(generation)):
        with settings_of(generation):
            model.generation_config = _generation_config(folder)
    if folder.hub_layout:
        model.get_model().vision_tower = hub_tower(folder, model.config)
    # A vision tower reads its own weights; a class that is not of this package may not say so to transformers.
    own = IN_CHECKPOINT if hasattr(model, "get_vision_tower") else ()
    fresh = [key for key in found["missing_keys"] if may_miss and may_miss(key)]
    if fresh:
        log.info("not in %s: %s", folder.path, listed(sorted(fresh)))
    report_misfits(
        str(folder.path),
        missing=[key for key in found["missing_keys"] if key not in fresh],
        unexpected=[key for key in found["unexpected_keys"] if key in keys and not key.startswith(own)],
        wrong_shapes=found["mismatched_keys"],
    )
    return model


def _generation_config(folder: CheckpointFolder) -> GenerationConfig:
    """Read how to generate from the file for it, else from config.json, byte order marks or not."""
    read = GenerationConfig.from_pretrained
    if not (folder.path / GENERATION_FILE).is_file():
        read = functools.partial(read, config_file_name=CONFIG_FILE, _from_model_config=True)
    return read_without_marks(folder.path, read)


def hub_tower(folder: CheckpointFolder, config: Any) -> CLIPVisionTower:
    """Make the vision tower of a folder in transformers' layout, as that describes it; its weights are not read.

    config: what ``make_config`` made of the folder.
    """
    described = hf_layout.hub_config(folder)
    vision, layer = described.vision_config, described.vision_feature_layer
    tower = tower_class(vision.model_type)(config.mm_vision_tower, args=config, delay_load=True)
    tower.checkpoint_folder = folder.path
    own = hf_vision.llava_vision_config(vision, layer, tower.select_layer)
    tower.describe(own, hf_layout.image_processor(folder))
    return tower
