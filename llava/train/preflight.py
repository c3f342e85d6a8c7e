"""Prepares what a training run knows of its samples' lengths from flags and configs, before any weight is read."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from llava.constants import DEFAULT_IM_END_TOKEN, DEFAULT_IM_START_TOKEN
from llava.model.checkpoint.folder import open_checkpoint
from llava.model.checkpoint.read_model import hub_tower, read_fields
from llava.model.llama_tokenizer import load_tokenizer
from llava.model.llava_arch import LlavaMetaForCausalLM
from llava.model.multimodal.aspect_ratio import cuts_crops
from llava.model.multimodal_encoder.builder import build_vision_tower
from llava.model.sequence_length import context_length
from llava.train.arguments import DataArguments, ModelArguments, TrainingArguments
from llava.train.data.length_check import ImageTags, LengthCheck
from llava.train.data.preprocessing import template_of
from llava.train.vision_settings import Arguments, VisionSettings

log = logging.getLogger("llava.train")

UNLIMITED = 1 << 40  # of a tokenizer: nothing is cut


class ImageCounter(LlavaMetaForCausalLM):
    """A model's way of counting positions, on a vision tower whose weights are not read."""

    def __init__(self, settings: VisionSettings, tower: Any) -> None:
        self.settings, self._unloaded = settings, tower
        self.config = SimpleNamespace(
            image_aspect_ratio=settings.image_aspect_ratio,
            image_grid_pinpoints=settings.image_grid_pinpoints,
            mm_patch_merge_type=settings.mm_patch_merge_type,
        )

    def get_vision_tower(self) -> Any:
        """Return the vision tower."""
        return self._unloaded

    @property
    def needs_sizes(self) -> bool:
        """Whether an image's positions depend on its size."""
        return cuts_crops(self.settings)


def image_counter(arguments: Arguments) -> ImageCounter | None:
    """Return the counter of a training run's flags; None where neither they nor the checkpoint name a vision tower.

    Raises ``CheckpointError`` where config or tower cannot be read.
    """
    model_args: ModelArguments = arguments[ModelArguments]
    folder = open_checkpoint(model_args.model_name_or_path, arguments[TrainingArguments].cache_dir)
    config: Any = SimpleNamespace(**{**read_fields(folder), "_name_or_path": str(folder.path)})
    settings = VisionSettings.resolve(config, arguments)
    if settings is None:
        return None
    own = settings.vision_tower == getattr(config, "mm_vision_tower", None)
    described: Any = config if own else settings
    in_hub_layout = own and folder.hub_layout
    tower = hub_tower(folder, config) if in_hub_layout else build_vision_tower(described, delay_load=True)
    tower.select_feature = settings.mm_vision_select_feature
    return ImageCounter(settings, tower)


def _warn_beyond_context(limit: int, arguments: Arguments) -> None:
    """Warn of samples that may be longer than what the model answers."""
    folder = open_checkpoint(arguments[ModelArguments].model_name_or_path, arguments[TrainingArguments].cache_dir)
    context = context_length(SimpleNamespace(**read_fields(folder)))
    if limit > context:
        log.warning(
            "--model_max_length %d is more than the %d positions of the model's config: what is longer than these is "
            "trained on, but prompts of that length are refused",
            limit,
            context,
        )


def length_check(arguments: Arguments) -> LengthCheck | None:
    """Return the check of the records' lengths for a training run's flags.

    None where there is no model whose tokenizer could count: none is named, or only the data are to be checked and the
    model would first be downloaded.
    """
    model_args: ModelArguments = arguments[ModelArguments]
    training_args: TrainingArguments = arguments[TrainingArguments]
    name = model_args.model_name_or_path
    if not name or (arguments[DataArguments].check_data_only and not Path(name).is_dir()):
        log.warning("lengths are not checked: --model_name_or_path is %r, and its tokenizer would count", name)
        return None
    counter = image_counter(arguments)
    tokenizer = load_tokenizer(name, cache_dir=training_args.cache_dir, model_max_length=UNLIMITED)
    if model_args.version != "v0":
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.pad_token
    tags = ImageTags(counter is not None, counter is not None and counter.settings.mm_use_im_start_end)
    if tags.mm_use_im_start_end:
        tokenizer.add_tokens([DEFAULT_IM_START_TOKEN, DEFAULT_IM_END_TOKEN], special_tokens=True)
    template, limit = template_of(model_args.version), training_args.model_max_length
    _warn_beyond_context(limit, arguments)
    if counter is None:
        return LengthCheck(tokenizer, template, limit, tags, None)
    turn = arguments[DataArguments].exif_orientation
    return LengthCheck(tokenizer, template, limit, tags, counter.max_image_tokens, counter.needs_sizes, turn)
