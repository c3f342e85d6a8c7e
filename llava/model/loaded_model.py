"""Opens the model that a program's flags name, with its tokenizer, image processor and conversation template."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llava.conversation import Conversation
from llava.errors import OptionError
from llava.generation import conversation_for
from llava.mm_utils import get_model_name_from_path
from llava.model.builder import load_pretrained_model
from llava.plugins import hooks, merged
from llava.protocols import ImageProcessor, LlavaModel, Tokenizer
from llava.utils import pick_device


@dataclass(frozen=True)
class LoadedModel:
    """A model that is ready to answer, and what goes with it.

    name: what clients ask for. context_length: tokens of prompt and answer in all. template: how prompts are worded,
    by the flag ``--conv-mode``, else as the model was trained; copy it before use. conv_mode: the template's version
    that the checkpoint states, if any. options: what plug-ins add to the program's flags, for the hook
    ``generation_options``.
    """

    name: str
    model: LlavaModel
    tokenizer: Tokenizer
    image_processor: ImageProcessor | None
    context_length: int
    template: Conversation
    conv_mode: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def takes_images(self) -> bool:
        """Whether the model has a vision tower."""
        return self.image_processor is not None

    def image_positions(self, size: tuple[int, int], num_images: int = 1) -> int:
        """Return how many positions of the decoder one of a prompt's images, of (width, height), takes."""
        return self.model.max_image_tokens(size, num_images)


def chosen_path(model_path: str | None) -> str:
    """Return the given checkpoint, else the bundled one. Raises OptionError where there is neither."""
    defaults = [path for path in hooks().default_model_path() if path]
    path = model_path or (defaults[0] if defaults else None)
    if path is None:
        raise OptionError("--model-path is missing, and no bundled model is installed")
    return path


def name_of(options: Mapping[str, Any]) -> str:
    """Return what clients ask for: the flag ``--model-name``, else by the path. Raises OptionError without a model."""
    return options.get("model_name") or get_model_name_from_path(chosen_path(options.get("model_path")))


def open_model(options: Mapping[str, Any], **loading: Any) -> LoadedModel:
    """Load the model that a program's flags name, and let the plug-ins prepare it.

    options: flags by name, of which ``model_path``, ``model_base``, ``model_name``, ``load_8bit``, ``load_4bit``,
    ``use_flash_attn``, ``device`` and ``conv_mode`` are read here, and others by plug-ins. loading: further keywords
    of ``load_pretrained_model``. Raises a LlavaError for flags or files that cannot be used.
    """
    path = chosen_path(options.get("model_path"))
    name = name_of(options)
    flags = {flag: bool(options.get(flag)) for flag in ("load_8bit", "load_4bit", "use_flash_attn")}
    keywords: dict[str, Any] = {"device": pick_device(options.get("device")), **flags, **loading}
    hooks().before_loading(options={**options, **keywords}, path=path, device=keywords["device"])
    tokenizer, model, image_processor, context_length = load_pretrained_model(
        path, options.get("model_base"), name, **keywords
    )
    added = merged(hooks().prepare_model(model=model, options=options))
    return LoadedModel(
        name,
        model,
        tokenizer,
        image_processor,
        context_length,
        conversation_for(model, name, options.get("conv_mode")),
        getattr(model.config, "conv_mode", None),
        added,
    )
