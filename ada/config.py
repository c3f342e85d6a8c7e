"""Configures an adaptive LLaVA: LLaVA's keys and the scheduler's, in the published format, a class per family."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ada.protocols import AdaptiveConfig
from llava.errors import OptionError
from llava.model.families import BEFORE_1_5
from llava.model.language_model.llava_llama import LlavaConfig
from llava.model.language_model.llava_mistral import LlavaMistralConfig
from llava.model.language_model.llava_qwen import LlavaQwenConfig

if TYPE_CHECKING:  # a base of the classes that AdaFields extends
    from transformers import PreTrainedConfig
else:
    PreTrainedConfig = object


@dataclass(kw_only=True, init=False, repr=False, eq=False)
class AdaFields(PreTrainedConfig):  # type: ignore[misc]
    """Keys of the scheduler.

    ``num_prefix_layers`` (P, by default half of the layers), ``scheduler_type`` ("H" or "L"), ``scheduler_rank``,
    ``token_selecting`` ("none", "prumerge" or "prumerge+": how image tokens are merged before the decoder).
    """

    num_prefix_layers: int | None = None
    scheduler_type: str = "H"
    scheduler_rank: int = 8
    token_selecting: str = "none"

    def __post_init__(self, **kwargs: Any) -> None:
        if self.num_prefix_layers is None:
            self.num_prefix_layers = max(1, self.num_hidden_layers // 2)
        super().__post_init__(**kwargs)


class AdaLlavaConfig(AdaFields, LlavaConfig):
    """Config of AdaLLaVA on Llama: the published models'."""

    model_type = "ada_llava_llama"


class AdaLlavaMistralConfig(AdaFields, LlavaMistralConfig):
    """Config of AdaLLaVA on Mistral."""

    model_type = "ada_llava_mistral"


class AdaLlavaQwenConfig(AdaFields, LlavaQwenConfig):
    """Config of AdaLLaVA on Qwen2."""

    model_type = "ada_llava_qwen"


# A LLaVA's model_type -> the config class that a scheduler makes of it.
ADAPTIVE = {
    LlavaConfig.model_type: AdaLlavaConfig,
    BEFORE_1_5: AdaLlavaConfig,
    LlavaMistralConfig.model_type: AdaLlavaMistralConfig,
    LlavaQwenConfig.model_type: AdaLlavaQwenConfig,
}
ADAPTIVE_TYPES = frozenset(config_class.model_type for config_class in ADAPTIVE.values())


def check_token_selecting(config: AdaptiveConfig) -> None:
    """Raise OptionError for an unknown way of selecting image tokens."""
    if config.token_selecting not in ("none", "prumerge", "prumerge+"):
        raise OptionError(f"token_selecting is {config.token_selecting!r}; expected none, prumerge or prumerge+")


def check_layer_kinds(config: AdaptiveConfig) -> None:
    """Raise OptionError for a decoder with several kinds of attention, one of which no prefix layer has.

    transformers sizes the masks of each kind by its first layer, which a plan may then skip.
    """
    kinds = list(getattr(config, "layer_types", None) or [])
    late = sorted({kind for kind in kinds if kinds.index(kind) >= config.num_prefix_layers})
    if late:
        raise OptionError(
            f"num_prefix_layers is {config.num_prefix_layers}, and the first layer with {late[0]} is layer "
            f"{kinds.index(late[0])}, which a plan may skip; it must be among the layers that always run"
        )
