"""Lists the adaptive models of every decoder family: a config, a class, and the plain class that it extends."""

from __future__ import annotations

from typing import Any

from ada.config import AdaLlavaMistralConfig, AdaLlavaQwenConfig
from ada.model.modeling import AdaLlavaCausalLM, AdaLlavaLlamaForCausalLM
from llava.errors import OptionError
from llava.model.language_model.llava_llama import LlavaLlamaForCausalLM
from llava.model.language_model.llava_mistral import LlavaMistralForCausalLM
from llava.model.language_model.llava_qwen import LlavaQwenForCausalLM


class AdaLlavaMistralForCausalLM(AdaLlavaCausalLM, LlavaMistralForCausalLM):
    """AdaLLaVA on Mistral's decoder."""

    config_class = AdaLlavaMistralConfig


class AdaLlavaQwenForCausalLM(AdaLlavaCausalLM, LlavaQwenForCausalLM):
    """AdaLLaVA on Qwen2's decoder."""

    config_class = AdaLlavaQwenConfig


# A family's plain class -> its adaptive one.
ADAPTIVE_MODELS: dict[type, Any] = {
    LlavaLlamaForCausalLM: AdaLlavaLlamaForCausalLM,
    LlavaMistralForCausalLM: AdaLlavaMistralForCausalLM,
    LlavaQwenForCausalLM: AdaLlavaQwenForCausalLM,
}


def make_adaptive(model: Any, kind: str = "H", num_prefix_layers: int | None = None) -> None:
    """Turn a loaded plain LLaVA into an adaptive one in place; without a scheduler, for untrained planners.

    Raises OptionError for a decoder family that has no adaptive class.
    """
    adaptive = ADAPTIVE_MODELS.get(type(model))
    if adaptive is None:
        known = ", ".join(kind.__name__ for kind in ADAPTIVE_MODELS)
        raise OptionError(
            f"latency budgets and --image-tokens need one of {known}; this model is {type(model).__name__}"
        )
    config: Any = model.config
    config.scheduler_type = kind
    config.num_prefix_layers = num_prefix_layers or max(1, config.num_hidden_layers // 2)
    config.scheduler_rank = next(r for r in (8, 4, 2, 1) if config.num_key_value_heads % r == 0)
    model.__class__ = adaptive
    model.scheduler = model.token_scorer = None
    model.install_plans()
