"""Estimates what one answer costs on a device: prefill and decode by part, and the peak memory."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ada.cost.hardware import Hardware
from ada.cost.products import (
    ELEMENT_BYTES,
    ImageEncoding,
    LateReading,
    VisionConfig,
    decoder_products,
    head_size,
    layer_products,
    prefill_products,
)
from ada.cost.roofline import Cost, total
from ada.cost.sizes import Sizes
from ada.protocols import AdaptiveConfig
from ada.scheduling.execution_plan import ExecutionPlan

JSON_NAMES = {"lm_head": "head"}  # parts that the JSON names otherwise


@dataclass(frozen=True)
class Estimate:
    """Costs of one answer.

    prefill: by part. decode: by part, the mean of the tokens after the first. memory: peak bytes, by what they hold.
    """

    prefill: dict[str, Cost]
    decode: dict[str, Cost]
    memory: dict[str, float]
    decode_tokens: int

    @property
    def first_token_s(self) -> float:
        """Time to first token, in seconds."""
        return total(self.prefill.values()).seconds

    @property
    def token_s(self) -> float:
        """Inter-token latency, in seconds."""
        return total(self.decode.values()).seconds

    def to_json(self) -> dict[str, Any]:
        """Return all figures, JSON-ready: FLOPs, bytes and seconds."""
        return {
            "prefill": _to_json(self.prefill),
            "decode_per_token": _to_json(self.decode),
            "peak_memory": self.memory,
            "totals": {
                "prefill_flops": total(self.prefill.values()).flops,
                "decode_flops_per_token": total(self.decode.values()).flops,
                "time_to_first_token_s": self.first_token_s,
                "token_s": self.token_s,
                "answer_s": self.first_token_s + self.decode_tokens * self.token_s,
                "peak_memory": sum(self.memory.values()),
            },
        }


def _to_json(parts: dict[str, Cost]) -> dict[str, Any]:
    return {JSON_NAMES.get(part, part): asdict(cost) for part, cost in parts.items()}


def estimate(
    sizes: Sizes,
    plan: ExecutionPlan,
    hardware: Hardware,
    prompt_tokens: int,
    gen_tokens: int,
    images: int = 1,
    *,
    late: LateReading | None = None,
    encoding: ImageEncoding | None = None,
) -> Estimate:
    """Estimate an answer of ``gen_tokens`` tokens, of which the first comes out of prefill.

    prompt_tokens: positions that enter the decoder, image tokens and latency token included. late, encoding: where
    image tokens are left out (``prompt_reading``). The KV cache has all positions that enter, in every layer. Raises
    OptionError for images that the model cuts into crops.
    """
    images = images if sizes.vision is not None else 0
    sizes.check_images(images)
    prefill = prefill_products(
        sizes.config,
        sizes.units,
        plan,
        prompt_tokens,
        num_images=images * sizes.crops_per_image,
        vision=sizes.vision,
        vision_layers=sizes.vision_layers,
        projector=sizes.projector,
        image_tokens=images * sizes.image_tokens,
        late=late,
        encoding=encoding,
    )
    steps = [
        decoder_products(sizes.config, sizes.units, plan, 1, prompt_tokens + step, late=_late_step(late, step))
        for step in range(1, gen_tokens)
    ]
    return Estimate(
        {part: Cost.of(products, hardware) for part, products in prefill.items()},
        {
            part: total([Cost.of(step[part], hardware) for step in steps], len(steps))
            for part in ("prefix", "tunable", "lm_head")
        },
        _peak_memory(sizes, plan, prompt_tokens, gen_tokens),
        len(steps),
    )


def _late_step(late: LateReading | None, step: int) -> LateReading | None:
    """What later layers attend to in a step of decode: what they have read, and the tokens since."""
    return None if late is None else LateReading(late.first_layer, late.positions + step)


def _peak_memory(sizes: Sizes, plan: ExecutionPlan, prompt_tokens: int, gen_tokens: int) -> dict[str, float]:
    """Return peak bytes by what they hold.

    These are all weights, the narrow copies of layers that run in part, the KV cache of the longest context, and the
    widest activations of prefill.
    """
    config, units = sizes.config, sizes.units
    dense = ExecutionPlan.full(units.num_layers, units.num_switches)
    layer = _layer_weights(config, dense, 0)
    embeddings = (1 if config.tie_word_embeddings else 2) * config.hidden_size * config.vocab_size
    narrow = [i for i, kept in enumerate(plan.layers) if not kept.is_empty and not plan.is_full(i)]
    key_value_heads = plan.heads_run * (config.num_key_value_heads // units.num_switches)
    elements = {
        "decoder": units.num_layers * layer + embeddings,
        "vision_tower": 0 if sizes.vision is None else _tower_weights(sizes.vision),
        "projector": 0 if sizes.projector is None else sum(p.numel() for p in sizes.projector.parameters()),
        "narrow_layers": sum(_layer_weights(config, plan, i) for i in narrow),
        "kv_cache": 2 * key_value_heads * head_size(config) * (prompt_tokens + max(0, gen_tokens - 1)),
        "activations": prompt_tokens * (2 * config.hidden_size + 2 * config.intermediate_size),
    }
    return {part: float(count * ELEMENT_BYTES) for part, count in elements.items()}


def _layer_weights(config: AdaptiveConfig, plan: ExecutionPlan, layer: int) -> int:
    """Count the weights of a layer under a plan: products of no rows read these alone."""
    return sum(product.elements for product in layer_products(config, plan.layers[layer], plan.num_switches, 0, 0))


def _tower_weights(vision: VisionConfig) -> int:
    patch = vision.num_channels * vision.patch_size**2 * vision.hidden_size
    layer = 4 * vision.hidden_size**2 + 2 * vision.hidden_size * vision.intermediate_size
    return patch + vision.num_hidden_layers * layer
