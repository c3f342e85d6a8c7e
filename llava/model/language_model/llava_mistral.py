"""LLaVA on a Mistral decoder."""

from __future__ import annotations

from transformers import MistralConfig, MistralForCausalLM, MistralModel

from llava.model.language_model.llava_decoder import LlavaCausalLM, LlavaFields, register
from llava.model.llava_arch import LlavaMetaModel


class LlavaMistralConfig(LlavaFields, MistralConfig):  # type: ignore[misc]
    """Mistral's config and LLaVA's ``mm_*`` keys, which are kept as they are found."""

    model_type = "llava_mistral"


class LlavaMistralModel(LlavaMetaModel, MistralModel):  # type: ignore[misc]
    """The decoder with its vision tower and projector."""

    config_class = LlavaMistralConfig


class LlavaMistralForCausalLM(LlavaCausalLM, MistralForCausalLM):  # type: ignore[misc]
    """Answers about images. ``generate`` returns the new tokens only: the prompt goes in as embeddings."""

    config_class = LlavaMistralConfig

    def __init__(self, config: LlavaMistralConfig) -> None:
        super(MistralForCausalLM, self).__init__(config)
        self.build(LlavaMistralModel(config))


register(LlavaMistralConfig, LlavaMistralForCausalLM)
