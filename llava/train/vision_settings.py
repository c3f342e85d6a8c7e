"""Vision settings of a training run: resolved once from flags and checkpoint, then written to the model's config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from transformers import PretrainedConfig

from llava.errors import OptionError
from llava.mm_utils import grid_resolutions
from llava.model.multimodal.aspect_ratio import cuts_crops
from llava.protocols import Tokenizer
from llava.train.arguments import DataArguments, ModelArguments, TrainingArguments

Arguments = Mapping[type, Any]
"""The parsed dataclasses by their type, those of plug-ins included."""

# Config fields of a LLaVA that keep their values where no flag sets them.
_INHERITED = ("mm_vision_select_layer", "mm_vision_select_feature", "mm_projector_type", "mm_patch_merge_type")
UNCUT = ("square", "pad")  # aspect ratios that do not cut images into crops
# Fields that are not the config's: files to read, and what initialize_vision_modules writes itself.
_NOT_IN_CONFIG = ("vision_tower", "pretrain_mm_mlp_adapter", *_INHERITED)


@dataclass(frozen=True)
class VisionSettings:
    """How a model sees images, under the names of the flags.

    image_grid_pinpoints: sizes [width, height] in pixels, or counts of crops as a text; None unless the aspect ratio is
    ``anyres`` or ``anyres_max_N``.
    """

    vision_tower: str
    pretrain_mm_mlp_adapter: str | None
    mm_vision_select_layer: int
    mm_vision_select_feature: str
    mm_projector_type: str
    mm_patch_merge_type: str
    mm_use_im_start_end: bool
    mm_use_im_patch_token: bool
    mm_projector_lr: float | None
    tune_mm_mlp_adapter: bool
    freeze_mm_mlp_adapter: bool
    image_aspect_ratio: str
    image_grid_pinpoints: list[list[int]] | str | None

    @classmethod
    def resolve(cls, config: PretrainedConfig, arguments: Arguments) -> VisionSettings | None:
        """Return the settings of a run from its flags and the checkpoint's config.

        Without ``--vision_tower`` the checkpoint's tower is used, with the checkpoint's values for the flags that have
        their defaults; None where it has no tower either. Raises ``OptionError`` for ``anyres`` without sizes, and
        ``CheckpointError`` for an aspect ratio or sizes of another form.
        """
        model_args: ModelArguments = arguments[ModelArguments]
        data_args: DataArguments = arguments[DataArguments]
        training_args: TrainingArguments = arguments[TrainingArguments]
        tower = model_args.vision_tower or getattr(config, "mm_vision_tower", None)
        if tower is None:
            return None
        flags = {name: getattr(model_args, name) for name in _INHERITED}
        if model_args.vision_tower is None:
            flags = {name: _flag_or_config(name, value, config) for name, value in flags.items()}
        return cls(
            vision_tower=tower,
            pretrain_mm_mlp_adapter=model_args.pretrain_mm_mlp_adapter,
            **flags,
            mm_use_im_start_end=model_args.mm_use_im_start_end,
            mm_use_im_patch_token=model_args.mm_use_im_patch_token,
            mm_projector_lr=training_args.mm_projector_lr,
            tune_mm_mlp_adapter=model_args.tune_mm_mlp_adapter,
            freeze_mm_mlp_adapter=training_args.freeze_mm_mlp_adapter,
            image_aspect_ratio=data_args.image_aspect_ratio,
            image_grid_pinpoints=_grid_pinpoints(config, data_args),
        )

    @property
    def adds_tokens(self) -> bool:
        """Whether the tokenizer gets tokens for images."""
        return self.mm_use_im_patch_token or self.mm_use_im_start_end

    def apply(self, config: PretrainedConfig, tokenizer: Tokenizer) -> None:
        """Write the settings to the config, so that whoever loads the model prepares images and prompts alike."""
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name not in _NOT_IN_CONFIG and not (field.name == "image_grid_pinpoints" and value is None):
                setattr(config, field.name, value)
        config.tokenizer_padding_side = tokenizer.padding_side
        config.tokenizer_model_max_length = tokenizer.model_max_length


def _flag_or_config(name: str, value: int | str, config: PretrainedConfig) -> Any:
    """Return the flag's value, or the config's where the flag has its default."""
    own = getattr(config, name, None)
    return own if value == getattr(ModelArguments(), name) and own is not None else value


def _grid_pinpoints(config: PretrainedConfig, data_args: DataArguments) -> list[list[int]] | str | None:
    """Return the sizes of ``--image_grid_pinpoints``, else those of the config; None unless images are cut."""
    if not cuts_crops(data_args):
        if data_args.image_aspect_ratio not in UNCUT:  # answering takes other values for the first, as upstream
            raise OptionError(
                f"--image_aspect_ratio is {data_args.image_aspect_ratio!r}; expected {', '.join(UNCUT)}, anyres, or "
                "anyres_max_N"
            )
        return None
    points = data_args.image_grid_pinpoints or getattr(config, "image_grid_pinpoints", None)
    if not points:
        raise OptionError(
            f"--image_aspect_ratio {data_args.image_aspect_ratio} needs --image_grid_pinpoints, sizes such as "
            "'[[336, 672], [672, 336]]', or counts of crops such as '(1x1),...,(6x6)'"
        )
    sizes = [list(size) for size in grid_resolutions(points, side=1)]
    return points if isinstance(points, str) and "x" in points else sizes  # a crop's side is the vision tower's
