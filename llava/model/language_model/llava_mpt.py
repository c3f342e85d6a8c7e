"""LLaVA on an MPT decoder."""

from __future__ import annotations

from typing import Any

import torch
from transformers import Cache, MptConfig, MptForCausalLM, MptModel

from llava.errors import CheckpointError
from llava.model.language_model.llava_decoder import LlavaCausalLM, LlavaFields, register
from llava.model.llava_arch import LlavaMetaModel
from llava.protocols import Images, ImageSizes

# What transformers' decoder computes, whatever the config says: other values would be ignored without a word.
COMPUTED: dict[str, object] = {"no_bias": True, "expansion_ratio": 4, "logit_scale": None}
COMPUTED_ATTENTION: dict[str, object] = {
    "alibi": True,
    "qk_ln": False,
    "prefix_lm": False,
    "attn_type": "multihead_attention",
}


class LlavaMptConfig(LlavaFields, MptConfig):  # type: ignore[misc]
    """MPT's config (``d_model``, ``n_layers``, ...) and LLaVA's ``mm_*`` keys, which are kept as they are found."""

    model_type = "llava_mpt"
    attribute_map = {  # noqa: RUF012 - transformers' own form
        **MptConfig.attribute_map,
        "num_key_value_heads": "n_heads",
        "max_position_embeddings": "max_seq_len",
    }


class LlavaMptModel(LlavaMetaModel, MptModel):  # type: ignore[misc]
    """The decoder with its vision tower and projector."""

    config_class = LlavaMptConfig
    _input_embed_layer = "wte"

    def embed_tokens(self, x: torch.Tensor) -> torch.Tensor:
        """Embed token ids (B, t) as (B, t, D)."""
        embeds: torch.Tensor = self.wte(x)
        return embeds


class LlavaMptForCausalLM(LlavaCausalLM, MptForCausalLM):  # type: ignore[misc]
    """Answers about images, without latency budgets: its layers have none of the projections that a plan cuts.

    ``generate`` returns the new tokens only: the prompt goes in as embeddings. Raises CheckpointError for a config
    that describes another decoder than transformers' computes.
    """

    config_class = LlavaMptConfig
    never_quantised = ("transformer.mm_projector", "lm_head")
    _keys_to_ignore_on_load_unexpected = (r"transformer\.vision_tower\.",)
    _input_embed_layer = "wte"

    def __init__(self, config: LlavaMptConfig) -> None:
        _check_decoder(config)
        super(MptForCausalLM, self).__init__(config)
        self.build(LlavaMptModel(config))

    def get_model(self) -> LlavaMptModel:
        """Return the decoder with its vision tower and projector."""
        decoder: LlavaMptModel = self.transformer
        return decoder

    def forward(  # type: ignore[override]
        self,
        input_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        images: Images | None = None,
        image_sizes: ImageSizes | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs: Any,
    ) -> Any:
        """Run the decoder on token ids (B, t) whose image tags stand for ``images``; arguments in upstream's order."""
        return super().forward(
            input_ids=input_ids,
            past_key_values=past_key_values,
            attention_mask=attention_mask,
            inputs_embeds=inputs_embeds,
            labels=labels,
            use_cache=use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=return_dict,
            images=images,
            image_sizes=image_sizes,
            logits_to_keep=logits_to_keep,
            **kwargs,
        )


def _check_decoder(config: LlavaMptConfig) -> None:
    for prefix, holder, computed in (("", config, COMPUTED), ("attn_config.", config.attn_config, COMPUTED_ATTENTION)):
        for name, value in computed.items():
            if getattr(holder, name) != value:
                raise CheckpointError(
                    f"{prefix}{name} is {getattr(holder, name)!r}; expected {value!r}, as transformers' MPT computes "
                    "nothing else"
                )


register(LlavaMptConfig, LlavaMptForCausalLM)
