"""Writes tokenizer and processor of transformers' own LLaVA classes, which prepare prompts and images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import (
    AddedToken,
    AutoTokenizer,
    LlavaImageProcessorPil,
    LlavaNextImageProcessorPil,
    LlavaNextProcessor,
    LlavaOnevisionImageProcessorPil,
    LlavaProcessor,
)
from transformers import LlavaConfig as HubLlavaConfig
from transformers import LlavaNextConfig as HubLlavaNextConfig

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.model.checkpoint.checkpoint_tools import write_json
from llava.model.checkpoint.hf_layout import takes_videos
from llava.model.llama_tokenizer import load_tokenizer
from llava.model.multimodal.image_pipeline import crop_side
from llava.model.multimodal_encoder.clip_encoder import CLIPVisionTower

_PIXEL_FIELDS = ("do_", "size", "crop_size", "resample", "rescale_factor", "image_mean", "image_std")


def tokenizer_with_tags(folder: Path, hub_class: Any) -> tuple[Any, dict[str, int]]:
    """Read transformers' tokenizer, and add the tags that ``hub_class``'s model needs; the second result has their ids.

    hub_class: the config's class. The tags are ``image`` and, where it takes videos, ``video``.
    """
    load_tokenizer(folder)  # an error here, where there is none
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tags = {"image": DEFAULT_IMAGE_TOKEN, **({"video": "<video>"} if takes_videos(hub_class) else {})}
    added = [AddedToken(tag, special=True, normalized=False) for tag in tags.values()]
    tokenizer.add_tokens(added, special_tokens=True)
    return tokenizer, {name: tokenizer.convert_tokens_to_ids(tag) for name, tag in tags.items()}


def save_processor(tower: CLIPVisionTower, tokenizer: Any, hub_config: Any, padded: bool, folder: Path) -> None:
    """Write the processor of a converted checkpoint, which prepares prompts and images as the model was trained.

    hub_config: transformers' config of the model. padded: whether a model that does not cut images pads them to a
    square.
    """
    pixels = _pixel_settings(tower)
    class_tokens = int(tower.config.model_type == "clip_vision_model")
    settings: dict[str, Any] = {
        "tokenizer": tokenizer,
        "patch_size": tower.config.patch_size,
        "vision_feature_select_strategy": hub_config.vision_feature_select_strategy,
        "num_additional_image_tokens": class_tokens,
    }
    if isinstance(hub_config, HubLlavaConfig):
        images = LlavaImageProcessorPil(**pixels, do_pad=padded)
        LlavaProcessor(image_processor=images, **settings).save_pretrained(folder)
    elif isinstance(hub_config, HubLlavaNextConfig):
        images = LlavaNextImageProcessorPil(**pixels, image_grid_pinpoints=hub_config.image_grid_pinpoints)
        LlavaNextProcessor(image_processor=images, **settings).save_pretrained(folder)
    else:
        _save_onevision(pixels, tokenizer, hub_config, tower.num_patches + class_tokens, folder)


def _pixel_settings(tower: CLIPVisionTower) -> dict[str, Any]:
    """Return the settings of the tower's image processor, for one that also crops unless it is asked not to."""
    own = tower.image_processor
    pixels = {name: value for name, value in own.to_dict().items() if name.startswith(_PIXEL_FIELDS)}
    if not pixels.get("do_center_crop"):
        side = crop_side(own)
        pixels.update(do_center_crop=False, crop_size={"height": side, "width": side})
    return pixels


def _save_onevision(
    pixels: Mapping[str, Any], tokenizer: Any, hub_config: Any, num_image_tokens: int, folder: Path
) -> None:
    """Write ``LlavaOnevisionProcessor``'s files. The class itself cannot be made here: its videos need torchvision."""
    images = LlavaOnevisionImageProcessorPil(**pixels, image_grid_pinpoints=hub_config.image_grid_pinpoints)
    tokenizer.save_pretrained(folder)
    write_json(
        folder / "processor_config.json",
        {
            "processor_class": "LlavaOnevisionProcessor",
            "image_processor": images.to_dict(),
            "video_processor": {**pixels, "video_processor_type": "LlavaOnevisionVideoProcessor"},
            "num_image_tokens": num_image_tokens,
            "vision_feature_select_strategy": hub_config.vision_feature_select_strategy,
            "vision_aspect_ratio": hub_config.vision_aspect_ratio,
        },
    )
