"""Translates configs between LLaVA's checkpoint layout and that of transformers' own LLaVA classes.

These are ``LlavaForConditionalGeneration`` and, for a LLaVA-1.6, ``LlavaNextForConditionalGeneration``.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoImageProcessor, CLIPImageProcessorPil, CLIPVisionConfig
from transformers import LlavaConfig as HubLlavaConfig
from transformers import LlavaNextConfig as HubLlavaNextConfig

from llava.errors import CheckpointError
from llava.model.checkpoint.folder import CheckpointFolder
from llava.model.checkpoint.weights_io import settings_of
from llava.model.multimodal.anyres_grid import grid_resolutions

HUB_CONFIGS = {kind.model_type: kind for kind in (HubLlavaConfig, HubLlavaNextConfig)}
_PROCESSOR_FIELDS = (
    "do_resize", "size", "resample", "do_center_crop", "crop_size", "do_rescale", "rescale_factor", "do_normalize",
    "image_mean", "image_std", "do_convert_rgb",
)  # fmt: skip


def llava_fields(folder: CheckpointFolder, families: Mapping[str, str]) -> dict[str, Any]:
    """Return what config.json would hold in LLaVA's layout, for a folder in transformers' layout.

    families: ``model_type`` of a decoder -> that of the LLaVA on it. Raises CheckpointError for what LLaVA's layout
    cannot say.
    """
    config = hub_config(folder)
    text, next_generation = config.text_config, isinstance(config, HubLlavaNextConfig)
    for name, found, fine in (
        ("text_config.model_type", text.model_type, tuple(families)),
        ("vision_config.model_type", config.vision_config.model_type, (CLIPVisionConfig.model_type,)),
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
    fields["dtype"] = fields["torch_dtype"] = str(config.dtype or text.dtype or "float32").removeprefix("torch.")
    if next_generation:
        # transformers' pairs are (height, width), LLaVA's (width, height).
        points = [[width, height] for height, width in config.image_grid_pinpoints]
        return {**fields, "image_aspect_ratio": "anyres", "image_grid_pinpoints": points}
    padded = getattr(_hub_processor(folder.path), "do_pad", None)
    return {**fields, "image_aspect_ratio": "pad" if padded else "square"}


def _vision_fields(config: HubLlavaConfig | HubLlavaNextConfig) -> dict[str, Any]:
    return {
        "mm_vision_tower": "vision_tower",
        "mm_hidden_size": config.vision_config.hidden_size,
        "mm_projector_type": "mlp2x_gelu",
        "mm_vision_select_layer": config.vision_feature_layer,
        "mm_vision_select_feature": "cls_patch" if config.vision_feature_select_strategy == "full" else "patch",
        "mm_patch_merge_type": "spatial_unpad" if isinstance(config, HubLlavaNextConfig) else "flat",
        "mm_use_im_start_end": False,
        "mm_use_im_patch_token": False,
        "use_mm_proj": True,
    }


def hub_config(folder: CheckpointFolder) -> Any:
    """Build transformers' own config object from a folder in its layout. Raises CheckpointError for other fields."""
    kind = folder.fields.get("model_type")
    if kind not in HUB_CONFIGS:
        raise _unsupported(folder.config_file, "model_type", kind, tuple(HUB_CONFIGS))
    with settings_of(folder.config_file):
        return HUB_CONFIGS[kind].from_dict(copy.deepcopy(folder.fields))


def image_processor(folder: CheckpointFolder) -> CLIPImageProcessorPil:
    """Make CLIP's processor with the settings of the folder's own; crops and padding are LLaVA's work."""
    given = _hub_processor(folder.path).to_dict()
    return CLIPImageProcessorPil(**{name: given[name] for name in _PROCESSOR_FIELDS if given.get(name) is not None})


def _hub_processor(folder: Path) -> Any:
    try:
        return AutoImageProcessor.from_pretrained(folder, backend="pil")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"there is no usable image processor in {folder}: {error}") from error


def make_hub_config(fields: dict[str, Any], decoder_type: str, vision: CLIPVisionConfig, image_token: int) -> Any:
    """Make transformers' config of a LLaVA whose own config.json has ``fields``.

    decoder_type: ``model_type`` of its language model alone. image_token: id of its token ``<image>``.

    Raises CheckpointError for what that class cannot do.
    """
    merge, aspect = fields.get("mm_patch_merge_type") or "flat", fields.get("image_aspect_ratio")
    projector = fields.get("mm_projector_type") or "linear"
    if projector != "mlp2x_gelu":
        raise CheckpointError(f"mm_projector_type is {projector!r}; transformers' class has mlp2x_gelu only")
    if (merge, aspect == "anyres") not in (("flat", False), ("spatial_unpad", True)):
        raise CheckpointError(
            f"mm_patch_merge_type is {merge!r} and image_aspect_ratio {aspect!r}; transformers' classes know 'flat' "
            "without anyres (LlavaForConditionalGeneration) and 'spatial_unpad' with it (LlavaNext...)"
        )
    decoder = type(AutoConfig.for_model(decoder_type))
    known = decoder().to_dict()
    own = {name: fields[name] for name in known if name in fields and name not in ("model_type", "architectures")}
    settings: dict[str, Any] = {
        "text_config": decoder(**{**own, "vocab_size": max(fields["vocab_size"], image_token + 1)}),
        "vision_config": vision,
        "image_token_index": image_token,
        "vision_feature_layer": fields["mm_vision_select_layer"],
        "vision_feature_select_strategy": "full"
        if fields.get("mm_vision_select_feature") == "cls_patch"
        else "default",
        "image_seq_length": (vision.image_size // vision.patch_size) ** 2,
        "tie_word_embeddings": bool(fields.get("tie_word_embeddings")),
        "dtype": fields.get("dtype") or fields.get("torch_dtype"),
    }
    if merge == "flat":
        return HubLlavaConfig(**settings, architectures=["LlavaForConditionalGeneration"])
    points = [[height, width] for width, height in grid_resolutions(fields.get("image_grid_pinpoints"))]
    architectures = ["LlavaNextForConditionalGeneration"]
    return HubLlavaNextConfig(**settings, image_grid_pinpoints=points, architectures=architectures)


def _unsupported(file: Path, name: str, found: object, fine: tuple[Any, ...]) -> CheckpointError:
    expected = " or ".join(str(value) for value in fine)
    return CheckpointError(f"{file} has {name} {found!r}, which is not supported; expected {expected}")
