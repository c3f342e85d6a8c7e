"""Reads a model's config, unit grid and vision tower for a cost estimate, without its weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import CLIPVisionConfig

from ada.config import ADAPTIVE, AdaLlavaConfig
from ada.cost.products import VisionConfig
from ada.protocols import AdaptiveConfig
from ada.scheduling.units import Units
from llava.errors import CheckpointError, OptionError
from llava.model.checkpoint.folder import open_checkpoint
from llava.model.checkpoint.read_model import hub_tower, read_fields
from llava.model.families import FAMILIES
from llava.model.multimodal.aspect_ratio import aspect_ratio, cuts_crops
from llava.model.multimodal_encoder.builder import build_vision_tower
from llava.model.multimodal_projector.builder import build_vision_projector

# LLaVA-1.5's decoders; its tower is CLIP ViT-L/14 at 336 pixels, of which all layers but the last run.
LLAMA = {
    "llama-7b": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32},
    "llama-13b": {"hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40, "num_attention_heads": 40},
}
CLIP_L_336 = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
}


@dataclass(frozen=True)
class Sizes:
    """Configs and unit grid of a model; ``vision`` and ``projector`` are None for a model without images.

    vision_layers: layers of the tower that run; crops_per_image: how often they run for one image. The projector is on
    the meta device: it has shapes and no weights. has_scheduler: False for a checkpoint that was trained without one.
    """

    config: AdaptiveConfig
    units: Units
    vision: VisionConfig | None = None
    vision_layers: int = 0
    crops_per_image: int = 1
    projector: nn.Module | None = None
    has_scheduler: bool = True

    @property
    def image_tokens(self) -> int:
        """Positions that one image takes in the decoder, where it is not cut into crops."""
        if self.vision is None:
            return 0
        return (self.vision.image_size // self.vision.patch_size) ** 2 + self.class_tokens

    @property
    def class_tokens(self) -> int:
        """Of an image's positions, that of the tower's class token: 1 where the decoder reads it, else 0."""
        has_one = self.vision is not None and self.vision.model_type != "siglip_vision_model"
        return int(has_one and getattr(self.config, "mm_vision_select_feature", None) == "cls_patch")

    def check_images(self, images: int) -> None:
        """Raise OptionError for images that are cut into crops: how many there are depends on each image's size."""
        if images and self.vision is not None and cuts_crops(self.config):
            raise OptionError(
                f"--images is {images}, and the model cuts an image into as many crops as its size asks for "
                f"(image_aspect_ratio {aspect_ratio(self.config)!r}), which is not estimated; expected 0, with the "
                "positions of all image tokens in --prompt-tokens, for an estimate of the decoder alone"
            )


def sizes_of(model: str, kind: str | None = None) -> Sizes:
    """Return the sizes of a name in ``LLAMA``, or of a checkpoint's folder or hub name (a LLaVA or a language model).

    kind: "H" or "L", by default the checkpoint's own, or H. Raises OptionError for a name that is neither and for a
    grid that does not fit the model, CheckpointError for a model that no plan fits.
    """
    config, vision, layers, crops, has_scheduler = _named(model) if model.lower() in LLAMA else _checkpoint(model)
    trained = has_scheduler and kind in (None, config.scheduler_type)
    config.scheduler_type = kind or config.scheduler_type
    if not trained:  # then the rank is a default, which need not fit
        ranks = (config.scheduler_rank, 4, 2, 1)
        config.scheduler_rank = next(r for r in ranks if r > 0 and config.num_key_value_heads % r == 0)
    with torch.device("meta"):
        projector = None if vision is None else build_vision_projector(config)
    return Sizes(config, Units.of(config), vision, layers, crops, projector, has_scheduler)


def _named(model: str) -> tuple[AdaptiveConfig, VisionConfig, int, int, bool]:
    config = AdaLlavaConfig(
        **LLAMA[model.lower()], vocab_size=32000, mm_hidden_size=1024, mm_projector_type="mlp2x_gelu"
    )
    return config, CLIPVisionConfig(**CLIP_L_336), CLIP_L_336["num_hidden_layers"] - 1, 1, True


def _checkpoint(model: str) -> tuple[AdaptiveConfig, VisionConfig | None, int, int, bool]:
    if not Path(model).is_dir() and model.count("/") != 1:
        raise OptionError(f"--model is {model!r}; expected {', '.join(LLAMA)}, a checkpoint's folder or a hub name")
    folder = open_checkpoint(model)
    fields = read_fields(folder)
    kinds = ADAPTIVE | {kind.model_type: kind for kind in ADAPTIVE.values()}
    kinds |= {
        family.decoder_type: ADAPTIVE[family.config_class.model_type]
        for family in FAMILIES
        if family.config_class.model_type in ADAPTIVE
    }
    config_class = kinds.get(fields.get("model_type", ""))
    if config_class is None:
        raise CheckpointError(f"{model} is a {fields.get('model_type')}; a latency budget needs {', '.join(kinds)}")
    config: Any = config_class.from_dict({**fields, "model_type": config_class.model_type})
    config._name_or_path = str(folder.path)
    has_scheduler = "scheduler_type" in fields
    if not getattr(config, "mm_vision_tower", None):
        return config, None, 0, 1, has_scheduler
    tower = hub_tower(folder, config) if folder.hub_layout else build_vision_tower(config, delay_load=True)
    return config, tower.config, tower.layers_run, tower.crops_per_image, has_scheduler
