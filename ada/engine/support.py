"""Decides where the engine decodes, and where transformers' loop does: the only place that does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ada.execution.layer_weights import can_cut
from llava.errors import OptionError

ASKED_FOR = "asked for"
ENGINES = ("auto", "ada", "transformers")

# Settings of ``generate`` that the engine does not have, and their values where they change nothing.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "num_beams": (None, 1),
    "num_return_sequences": (None, 1),
    "penalty_alpha": (None,),
    "dola_layers": (None,),
    "assistant_model": (None,),
    "prompt_lookup_num_tokens": (None,),
    "assistant_early_exit": (None,),
    "cache_implementation": (None, "dynamic"),
    "guidance_scale": (None, 1.0),
    "prefill_chunk_size": (None,),
    "stop_strings": (None,),
    "token_healing": (None, False),
    "output_attentions": (None, False),
    "output_hidden_states": (None, False),
    "use_cache": (None, True),
    "past_key_values": (None,),
    "custom_generate": (None,),
    "compile_config": (None,),
    "synced_gpus": (None, False),
}
STATIC_ROPE = {"default", "linear", "llama3", "yarn"}  # others change with the length of the sequence


def reason_against(model: Any, engine: str, settings: Mapping[str, Any]) -> str | None:
    """Return why transformers' loop decodes a call of ``generate``; None where the engine does.

    engine: "auto", or one of the two by name; settings: the call's keywords. Raises OptionError for a name that is
    none, and for "ada" where that cannot be.
    """
    if engine not in ENGINES:
        raise OptionError(f"engine is {engine!r}; expected one of {', '.join(ENGINES)}")
    if engine == "transformers":
        return ASKED_FOR
    reason = _of_settings(model, settings) or reason_of_model(model)
    if reason is None and model.narrow_cache is None:
        reason = "layers are masked"
    if reason is None and model.training and torch.is_grad_enabled():
        reason = "the model is in training"
    if reason is not None and engine == "ada":
        raise OptionError(f"engine is 'ada', which cannot decode this call: {reason}; leave it out")
    return reason


def _of_settings(model: Any, settings: Mapping[str, Any]) -> str | None:
    given = settings.get("generation_config") or model.generation_config
    for name, neutral in NEUTRAL.items():
        value = settings[name] if name in settings else getattr(given, name, None)
        if not any(value is one or value == one for one in neutral):
            return f"{name} is {value!r}" if isinstance(value, int | float | str) else f"{name} is given"
    return None


def reason_of_model(model: Any) -> str | None:
    """Return why the engine cannot decode a model; None where it can."""
    config, layers = model.config, model.model.layers
    if not all(map(can_cut, layers)):
        return "weights are quantised by bitsandbytes, adapted or offloaded"
    parts = [model.model.embed_tokens, model.model.norm, model.lm_head]
    parts += [layer.self_attn.q_proj for layer in layers]  # device_map splits no layer
    if len({part.weight.device for part in parts}) > 1:  # what is offloaded is on the meta device
        return "the model is on several devices, or a part of it is offloaded"
    if getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True):
        return "attention has a sliding window"
    if hasattr(layers[0].self_attn, "q_norm"):
        return "queries and keys are normalised"
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    if rope not in STATIC_ROPE:
        return f"position encoding is {rope!r}"
    return None
