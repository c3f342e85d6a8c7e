"""Lists the decoder families: which config and model class make a LLaVA of which language model.

A new family is a module in ``language_model/`` and a line in ``FAMILIES``; README.md says how, step by step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llava.model.language_model.llava_llama import LlavaConfig, LlavaLlamaForCausalLM
from llava.model.language_model.llava_mistral import LlavaMistralConfig, LlavaMistralForCausalLM
from llava.model.language_model.llava_mpt import LlavaMptConfig, LlavaMptForCausalLM
from llava.model.language_model.llava_qwen import LlavaQwenConfig, LlavaQwenForCausalLM
from llava.plugins import hooks, merged

ModelClasses = dict[str, tuple[Any, Any]]  # model_type -> config class, model class


@dataclass(frozen=True)
class Family:
    """``decoder_type``: ``model_type`` of the language model alone; the classes are the LLaVA's.

    in_hub_layout: whether a checkpoint may be in the layout of transformers' own LLaVA classes, too.
    """

    decoder_type: str
    config_class: Any
    model_class: Any
    in_hub_layout: bool = True


FAMILIES = (
    Family("llama", LlavaConfig, LlavaLlamaForCausalLM),
    Family("mistral", LlavaMistralConfig, LlavaMistralForCausalLM),
    Family("qwen2", LlavaQwenConfig, LlavaQwenForCausalLM),
    Family("mpt", LlavaMptConfig, LlavaMptForCausalLM, in_hub_layout=False),
)
BEFORE_1_5 = "llava"  # the model_type of LLaVA's first checkpoints, on Llama, and again of some of LLaVA-NeXT's


def llava_classes() -> ModelClasses:
    """Return config and model class by ``model_type``, of the shell's own LLaVAs."""
    classes = {family.config_class.model_type: (family.config_class, family.model_class) for family in FAMILIES}
    return {**classes, BEFORE_1_5: (LlavaConfig, LlavaLlamaForCausalLM)}


def known_classes() -> ModelClasses:
    """Return config and model class by ``model_type``, of the shell's LLaVAs and the plug-ins'."""
    return {**llava_classes(), **merged(hooks().model_classes())}
