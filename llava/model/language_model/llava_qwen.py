"""LLaVA on a Qwen2 decoder."""

from __future__ import annotations

from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2Model

from llava.model.language_model.llava_decoder import LlavaCausalLM, LlavaFields, register
from llava.model.llava_arch import LlavaMetaModel


class LlavaQwenConfig(LlavaFields, Qwen2Config):  # type: ignore[misc]
    """Qwen2's config and LLaVA's ``mm_*`` keys, which are kept as they are found."""

    model_type = "llava_qwen"
    conv_mode = "qwen_1_5"  # that of LLaVA-NeXT and LLaVA-OneVision, whose config.json states none


class LlavaQwenModel(LlavaMetaModel, Qwen2Model):  # type: ignore[misc]
    """The decoder with its vision tower and projector."""

    config_class = LlavaQwenConfig


class LlavaQwenForCausalLM(LlavaCausalLM, Qwen2ForCausalLM):  # type: ignore[misc]
    """Answers about images. ``generate`` returns the new tokens only: the prompt goes in as embeddings."""

    config_class = LlavaQwenConfig

    def __init__(self, config: LlavaQwenConfig) -> None:
        super(Qwen2ForCausalLM, self).__init__(config)
        self.build(LlavaQwenModel(config))


register(LlavaQwenConfig, LlavaQwenForCausalLM)
