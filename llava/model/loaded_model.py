"""The model that a worker serves, with all that goes with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llava.errors import OptionError
from llava.generation import conversation_for
from llava.mm_utils import get_anyres_image_grid_shape, get_model_name_from_path
from llava.model.builder import load_pretrained_model
from llava.plugins import hooks, merged
from llava.utils import pick_device


@dataclass(frozen=True)
class LoadedModel:
    """``name``: what clients ask for. ``context_length``: tokens of prompt and answer together. ``conv_mode``: version
    of the template that the model expects; clients render the prompt by it. ``options``: what plug-ins add to the
    program's, for the hook ``generation_options``."""

    name: str
    model: Any
    tokenizer: Any
    image_processor: Any
    context_length: int
    conv_mode: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def takes_images(self) -> bool:
        """Whether there is a vision tower."""
        return self.image_processor is not None

    def image_positions(self, size: tuple[int, int]) -> int:
        """Positions that a picture of (width, height) takes in the sequence, at most."""
        tower, config = self.model.get_vision_tower(), self.model.config
        features = tower.num_patches + (tower.select_feature == "cls_patch")
        if getattr(config, "image_aspect_ratio", None) != "anyres":
            return features
        across, down = get_anyres_image_grid_shape(size, config.image_grid_pinpoints, tower.config.image_size)
        newlines = 0
        if "unpad" in (getattr(config, "mm_patch_merge_type", None) or "flat"):
            newlines = max(1, down * tower.num_patches_per_side)  # one behind each row of patches
        return features * (1 + across * down) + newlines


def open_model(options: Mapping[str, Any]) -> LoadedModel:
    """Load what a program's flags name. Raises a ``LlavaError`` that says what is wrong."""
    defaults = [path for path in hooks().default_model_path() if path]
    path = options.get("model_path") or (defaults[0] if defaults else None)
    if path is None:
        raise OptionError("--model-path is missing, and no bundled model is installed")
    name = options.get("model_name") or get_model_name_from_path(path)
    tokenizer, model, image_processor, context_length = load_pretrained_model(
        path,
        options.get("model_base"),
        name,
        load_8bit=bool(options.get("load_8bit")),
        load_4bit=bool(options.get("load_4bit")),
        device=pick_device(options.get("device")),
        use_flash_attn=bool(options.get("use_flash_attn")),
    )
    added = merged(hooks().prepare_model(model=model, options=options))
    longest = getattr(model.config, "max_position_embeddings", None) or context_length
    conversation_for(model, name, None)  # refuses a conv_mode that does not exist
    return LoadedModel(
        name,
        model,
        tokenizer,
        image_processor,
        min(context_length, longest),
        getattr(model.config, "conv_mode", None),
        added,
    )
