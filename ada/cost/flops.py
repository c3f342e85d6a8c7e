"""Floating-point operations of a plan, counted from shapes: two for each multiply-add of a matrix product.

Norms, rotary embeddings, softmax and activations are left out, as torch's ``FlopCounterMode`` leaves them out.
Attention counts every query against every key, as the products run on a full matrix; a fused kernel that skips the
upper triangle does about half of that part.
"""

from __future__ import annotations

from typing import Any

from ada.scheduling.execution_plan import ExecutionPlan, LayerPlan
from ada.scheduling.latency_token import ENCODING_SIZE
from ada.scheduling.units import Units

Flops = dict[str, int]
"""Operations by part: ``vision_tower, projector, prefix, tunable, scheduler, lm_head``."""


def layer_flops(config: Any, plan: LayerPlan, num_switches: int, queries: int, keys: int) -> int:
    """One decoder layer under a plan: ``queries`` new positions that attend to ``keys`` positions."""
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    key_width = len(plan.heads) * (config.num_key_value_heads // num_switches) * head_dim
    query_width = key_width * (config.num_attention_heads // config.num_key_value_heads)
    neurons = plan.neurons(config.intermediate_size, num_switches)
    projections = 2 * queries * config.hidden_size * (2 * query_width + 2 * key_width + 3 * neurons)
    return projections + 2 * 2 * queries * keys * query_width


def decoder_flops(config: Any, units: Units, plan: ExecutionPlan, queries: int, keys: int, scored: int = 1) -> Flops:
    """The decoder's layers, split at layer P, and the head for ``scored`` positions."""
    each = [layer_flops(config, layer, plan.num_switches, queries, keys) for layer in plan.layers]
    first = units.num_prefix_layers
    head = 2 * scored * config.hidden_size * config.vocab_size
    return {"prefix": sum(each[:first]), "tunable": sum(each[first:]), "lm_head": head}


def vision_flops(vision: Any, layers: int) -> int:
    """The first ``layers`` layers of a CLIP vision tower on one picture; ``vision`` is its config."""
    patches = (vision.image_size // vision.patch_size) ** 2
    tokens, width = patches + 1, vision.hidden_size
    embedding = 2 * patches * width * vision.num_channels * vision.patch_size**2
    layer = 2 * tokens * width * (4 * width + 2 * vision.intermediate_size) + 4 * tokens * tokens * width
    return embedding + layers * layer


def projector_flops(projector: Any, tokens: int) -> int:
    """A projector's linear layers on ``tokens`` image positions."""
    return sum(2 * tokens * m.in_features * m.out_features for m in projector.modules() if hasattr(m, "in_features"))


def scheduler_flops(config: Any, units: Units) -> int:
    """The latency encoder and the scoring head, once a prompt."""
    width = config.hidden_size
    scores = units.num_tunable_layers * (1 if units.kind == "L" else 2 * units.num_switches)
    return 2 * (ENCODING_SIZE * width + width * width + width * scores)


def prefill_flops(
    config: Any,
    units: Units,
    plan: ExecutionPlan,
    prompt_tokens: int,
    *,
    num_images: int = 0,
    vision: Any = None,
    vision_layers: int = 0,
    projector: Any = None,
    image_tokens: int = 0,
    has_scheduler: bool = True,
    scored: int = 1,
) -> Flops:
    """All of a prefill by part.

    prompt_tokens: positions that enter the decoder, image and latency tokens included. image_tokens: positions that
    leave the projector, over all pictures. ``vision`` is the tower's config, of which ``vision_layers`` run,
    ``projector`` the module. scored: positions that get logits; generation asks for the last one's alone.
    """
    flops = {
        "vision_tower": num_images * vision_flops(vision, vision_layers) if vision is not None else 0,
        "projector": projector_flops(projector, image_tokens) if projector is not None else 0,
        **decoder_flops(config, units, plan, prompt_tokens, prompt_tokens, scored),
    }
    flops["scheduler"] = scheduler_flops(config, units) if has_scheduler else 0
    return flops


def decode_flops(config: Any, units: Units, plan: ExecutionPlan, context_tokens: int) -> Flops:
    """One generated token that attends to ``context_tokens`` positions, itself included, by part."""
    return decoder_flops(config, units, plan, 1, context_tokens)
