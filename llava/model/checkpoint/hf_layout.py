"""Translates configs between LLaVA's checkpoint layout and that of transformers' own LLaVA classes.

These are ``LlavaForConditionalGeneration``, for a LLaVA-1.6 ``LlavaNextForConditionalGeneration``, and for a
LLaVA-OneVision ``LlavaOnevisionForConditionalGeneration``.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from transformers import (
    AutoConfig,
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlavaImageProcessorPil,
    LlavaNextImageProcessorPil,
    LlavaOnevisionImageProcessorPil,
    SiglipImageProcessorPil,
)
from transformers import LlavaConfig as HubLlavaConfig
from transformers import LlavaNextConfig as HubLlavaNextConfig
from transformers import LlavaOnevisionConfig as HubLlavaOnevisionConfig

from llava.errors import CheckpointError
from llava.model.checkpoint.byte_order_mark import read_without_marks
from llava.model.checkpoint.folder import CheckpointFolder
from llava.model.checkpoint.hf_vision import SIGLIP, is_siglip, llava_select_layer, select_strategy
from llava.model.checkpoint.weights_io import settings_of
from llava.model.language_model.llava_decoder import with_old_names
from llava.model.multimodal.anyres_grid import grid_resolutions
from llava.model.multimodal.aspect_ratio import cuts_crops, max_crops
from llava.model.multimodal_encoder.builder import tower_class

HUB_CONFIGS = {kind.model_type: kind for kind in (HubLlavaConfig, HubLlavaNextConfig, HubLlavaOnevisionConfig)}
PROCESSORS: dict[str, Any] = {
    kind.__name__.removesuffix("Pil"): kind
    for kind in (
        CLIPImageProcessorPil,
        LlavaImageProcessorPil,
        LlavaNextImageProcessorPil,
        LlavaOnevisionImageProcessorPil,
        SiglipImageProcessorPil,
    )
}
_CROP_FIELDS = ("do_center_crop", "crop_size")
_PROCESSOR_FIELDS = (
    "do_resize", "size", "resample", "do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std",
    "do_convert_rgb", *_CROP_FIELDS,
)  # fmt: skip


def llava_fields(folder: CheckpointFolder, families: Mapping[str, str]) -> dict[str, Any]:
    """Return what config.json would hold in LLaVA's layout, for a folder in transformers' layout.

    families: ``model_type`` of a decoder -> that of the LLaVA on it. Raises CheckpointError for what LLaVA's layout
    cannot say.
    """
    config = hub_config(folder)
    text, vision = config.text_config, config.vision_config
    strategies = ("full",) if is_siglip(vision) else ("default", "full")
    for name, found, fine in (
        ("text_config.model_type", text.model_type, tuple(families)),
        ("vision_config.model_type", vision.model_type, (CLIPVisionConfig.model_type, SIGLIP)),
        ("vision_feature_select_strategy", config.vision_feature_select_strategy, strategies),
        ("projector_hidden_act", config.projector_hidden_act, ("gelu",)),
        ("multimodal_projector_bias", config.multimodal_projector_bias, (True,)),
    ):
        if found not in fine:
            raise _unsupported(folder.config_file, name, found, fine)
    if not isinstance(config.vision_feature_layer, int):
        raise _unsupported(folder.config_file, "vision_feature_layer", config.vision_feature_layer, ("one layer",))
    fields = {**text.to_dict(), "model_type": families[text.model_type], **_vision_fields(config)}
    for name in ("_name_or_path", "architectures", "transformers_version"):
        fields.pop(name, None)
    fields["tie_word_embeddings"] = config.tie_word_embeddings
    fields["dtype"] = str(config.dtype or text.dtype or "float32").removeprefix("torch.")
    return {**with_old_names(fields), **_aspect_fields(config, folder)}


def _vision_fields(config: Any) -> dict[str, Any]:
    vision = config.vision_config
    with_class_token = config.vision_feature_select_strategy == "full" and not is_siglip(vision)
    return {
        "mm_vision_tower": "vision_tower",
        "mm_hidden_size": vision.hidden_size,
        "mm_projector_type": "mlp2x_gelu",
        "mm_vision_select_layer": llava_select_layer(vision, config.vision_feature_layer),
        "mm_vision_select_feature": "cls_patch" if with_class_token else "patch",
        "mm_use_im_start_end": False,
        "mm_use_im_patch_token": False,
        "use_mm_proj": True,
    }


def _aspect_fields(config: Any, folder: CheckpointFolder) -> dict[str, Any]:
    """Return how images are cut and their features merged, in LLaVA's terms."""
    if isinstance(config, HubLlavaConfig):
        padded = getattr(_hub_processor(folder.path), "do_pad", None)
        return {"image_aspect_ratio": "pad" if padded else "square", "mm_patch_merge_type": "flat"}
    aspect = "anyres"
    if isinstance(config, HubLlavaOnevisionConfig):
        aspect = config.vision_aspect_ratio
        if not str(aspect).startswith("anyres_max_"):
            raise _unsupported(folder.config_file, "vision_aspect_ratio", aspect, ("anyres_max_N",))
    # transformers' pairs are (height, width), LLaVA's (width, height).
    points = [[width, height] for height, width in config.image_grid_pinpoints]
    return {"image_aspect_ratio": aspect, "image_grid_pinpoints": points, "mm_patch_merge_type": "spatial_unpad"}


def hub_config(folder: CheckpointFolder) -> Any:
    """Build transformers' own config object from a folder in its layout. Raises CheckpointError for other fields."""
    kind = folder.fields.get("model_type")
    if kind not in HUB_CONFIGS:
        raise _unsupported(folder.config_file, "model_type", kind, tuple(HUB_CONFIGS))
    with settings_of(folder.config_file):
        return HUB_CONFIGS[kind].from_dict(copy.deepcopy(folder.fields))


def tags_of(config: Any) -> list[int]:
    """Return the ids of the tokens for images and, where there is one, for videos, of transformers' config."""
    return [config.image_token_index, *([config.video_token_index] if takes_videos(type(config)) else [])]


def image_processor(folder: CheckpointFolder) -> Any:
    """Make the vision tower's processor with the settings of the folder's own; crops and padding are LLaVA's work."""
    vision, given = hub_config(folder).vision_config, _hub_processor(folder.path).to_dict()
    settings = {name: given[name] for name in _PROCESSOR_FIELDS if given.get(name) is not None}
    if is_siglip(vision):
        settings.pop("do_center_crop", None)
        settings["crop_size"] = settings["size"]  # as the tower's own
    elif not settings.setdefault("do_center_crop", False):
        settings.pop("crop_size", None)
    return tower_class(vision.model_type).processor_class(**settings)


def _hub_processor(folder: Path) -> Any:
    """Read the folder's own image processor, as PIL's; transformers' Auto class of some releases needs torchvision."""

    def read(readable: Path) -> Any:
        fields, _ = PROCESSORS["CLIPImageProcessor"].get_image_processor_dict(readable)
        stated = str(fields.get("image_processor_type") or fields.get("feature_extractor_type"))
        name = re.sub("(Fast|Pil)$", "", stated.replace("FeatureExtractor", "ImageProcessor"))
        if name not in PROCESSORS:
            raise ValueError(f"its type is {stated}; expected one of {', '.join(PROCESSORS)}")
        return PROCESSORS[name].from_pretrained(readable)

    try:
        return read_without_marks(folder, read)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"there is no usable image processor in {folder}: {error}") from error


def make_hub_config(
    fields: dict[str, Any], decoder_type: str, vision: tuple[Any, int], tokens: Mapping[str, int]
) -> Any:
    """Make transformers' config of a LLaVA whose own config.json has ``fields``.

    decoder_type: ``model_type`` of its language model alone. vision: the tower's config, and the layer of it that is
    used. tokens: ids of the tokens ``image`` and, for a class that takes them, ``video``. Raises CheckpointError for
    what that class cannot do.
    """
    vision_config, feature_layer = vision
    decoder = type(AutoConfig.for_model(decoder_type))
    known = decoder().to_dict()
    own = {name: fields[name] for name in known if name in fields and name not in ("model_type", "architectures")}
    settings: dict[str, Any] = {
        "text_config": decoder(**{**own, "vocab_size": max(fields["vocab_size"], 1 + max(tokens.values()))}),
        "vision_config": vision_config,
        "image_token_index": tokens["image"],
        "vision_feature_layer": feature_layer,
        "vision_feature_select_strategy": select_strategy(vision_config, fields.get("mm_vision_select_feature")),
        "tie_word_embeddings": bool(fields.get("tie_word_embeddings")),
        "dtype": fields.get("dtype") or fields.get("torch_dtype"),
    }
    return _with_aspect(settings, hub_class(fields), fields, tokens)


def hub_class(fields: Mapping[str, Any]) -> Any:
    """Return transformers' config class for a LLaVA whose config.json has ``fields``.

    Raises CheckpointError where no class of transformers' does the same.
    """
    settings = SimpleNamespace(**fields)
    merge, aspect = fields.get("mm_patch_merge_type") or "flat", fields.get("image_aspect_ratio")
    projector = fields.get("mm_projector_type") or "linear"
    if projector != "mlp2x_gelu":
        raise CheckpointError(f"mm_projector_type is {projector!r}; transformers' class has mlp2x_gelu only")
    if (merge, cuts_crops(settings)) not in (("flat", False), ("spatial_unpad", True)):
        raise CheckpointError(
            f"mm_patch_merge_type is {merge!r} and image_aspect_ratio {aspect!r}; transformers' classes know 'flat' "
            "without anyres (LlavaForConditionalGeneration) and 'spatial_unpad' with anyres (LlavaNext...) or "
            "anyres_max_N (LlavaOnevision...)"
        )
    if merge == "flat":
        return HubLlavaConfig
    return HubLlavaNextConfig if max_crops(settings) is None else HubLlavaOnevisionConfig


def takes_videos(hub_class: Any) -> bool:
    """Return whether the model of transformers' config class has a token for videos."""
    return hub_class is HubLlavaOnevisionConfig


def _with_aspect(settings: dict[str, Any], kind: Any, fields: Mapping[str, Any], tokens: Mapping[str, int]) -> Any:
    """Make the config of class ``kind``, with how images are cut."""
    vision = settings["vision_config"]
    architecture = kind.__name__.replace("Config", "ForConditionalGeneration")
    if kind is not HubLlavaOnevisionConfig:
        settings["image_seq_length"] = (vision.image_size // vision.patch_size) ** 2
    if kind is not HubLlavaConfig:
        sizes = grid_resolutions(fields.get("image_grid_pinpoints"), vision.image_size)
        settings["image_grid_pinpoints"] = [[height, width] for width, height in sizes]
    if kind is HubLlavaOnevisionConfig:
        settings["vision_aspect_ratio"] = fields["image_aspect_ratio"]
        settings["video_token_index"] = tokens["video"]
    return kind(**settings, architectures=[architecture])


def _unsupported(file: Path, name: str, found: object, fine: tuple[Any, ...]) -> CheckpointError:
    expected = " or ".join(str(value) for value in fine)
    return CheckpointError(f"{file} has {name} {found!r}, which is not supported; expected {expected}")
