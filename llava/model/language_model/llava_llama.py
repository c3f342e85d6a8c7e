"""LLaVA on a Llama decoder."""

from __future__ import annotations

from transformers import LlamaConfig, LlamaForCausalLM, LlamaModel

from llava.model.language_model.llava_decoder import LlavaCausalLM, LlavaFields, register
from llava.model.llava_arch import LlavaMetaModel


class LlavaConfig(LlavaFields, LlamaConfig):  # type: ignore[misc]
    """Llama's config and LLaVA's ``mm_*`` keys, which are kept as they are found."""

    model_type = "llava_llama"


class LlavaLlamaModel(LlavaMetaModel, LlamaModel):  # type: ignore[misc]
    """The decoder with its vision tower and projector."""

    config_class = LlavaConfig


class LlavaLlamaForCausalLM(LlavaCausalLM, LlamaForCausalLM):  # type: ignore[misc]
    """Answers about images. ``generate`` returns the new tokens only: the prompt goes in as embeddings."""

    config_class = LlavaConfig

    def __init__(self, config: LlavaConfig) -> None:
        super(LlamaForCausalLM, self).__init__(config)
        self.build(LlavaLlamaModel(config))


register(LlavaConfig, LlavaLlamaForCausalLM)
