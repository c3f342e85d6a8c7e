"""The decoder families: which classes make a LLaVA of which language model.

A new family is a file in ``language_model/`` and a line here; maskable layers come with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llava.model.language_model.llava_llama import LlavaConfig, LlavaLlamaForCausalLM
from llava.model.language_model.llava_mistral import LlavaMistralConfig, LlavaMistralForCausalLM
from llava.model.language_model.llava_qwen import LlavaQwenConfig, LlavaQwenForCausalLM


@dataclass(frozen=True)
class Family:
    """``decoder_type``: ``model_type`` of the language model alone; the classes are the LLaVA's."""

    decoder_type: str
    config_class: Any
    model_class: Any


FAMILIES = (
    Family("llama", LlavaConfig, LlavaLlamaForCausalLM),
    Family("mistral", LlavaMistralConfig, LlavaMistralForCausalLM),
    Family("qwen2", LlavaQwenConfig, LlavaQwenForCausalLM),
)
BEFORE_1_5 = "llava"  # the model_type of LLaVA's first checkpoints, all of them on Llama


def llava_classes() -> dict[str, tuple[Any, Any]]:
    """``model_type`` of a LLaVA -> config and model class."""
    classes = {family.config_class.model_type: (family.config_class, family.model_class) for family in FAMILIES}
    return {**classes, BEFORE_1_5: (LlavaConfig, LlavaLlamaForCausalLM)}
