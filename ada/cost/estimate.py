"""What one answer costs on a device: by part, for prefill and decode, and the memory at its peak."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from ada.cost.hardware import Hardware
from ada.cost.roofline import (
    NUMBER_BYTES,
    Cost,
    decoder_products,
    layer_products,
    linear,
    scheduler_products,
    vision_products,
)
from ada.cost.sizes import Sizes
from ada.scheduling.execution_plan import ExecutionPlan


@dataclass(frozen=True)
class Estimate:
    """prefill: by part. decode: by part, the mean token behind the first. memory: peak bytes, by what they hold."""

    prefill: dict[str, Cost]
    decode: dict[str, Cost]
    memory: dict[str, float]
    decode_tokens: int

    @property
    def first_token_s(self) -> float:
        """Seconds."""
        return total(self.prefill.values()).seconds

    @property
    def token_s(self) -> float:
        """Seconds of each further token."""
        return total(self.decode.values()).seconds

    def to_json(self) -> dict[str, Any]:
        """Operations, bytes, seconds."""
        return {
            "prefill": {part: asdict(cost) for part, cost in self.prefill.items()},
            "decode_per_token": {part: asdict(cost) for part, cost in self.decode.items()},
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


def estimate(
    sizes: Sizes, plan: ExecutionPlan, hardware: Hardware, prompt_tokens: int, gen_tokens: int, images: int = 1
) -> Estimate:
    """prompt_tokens: positions that enter the decoder, of pictures and latency token too. Of ``gen_tokens`` tokens the
    first comes out of prefill."""
    config, units = sizes.config, sizes.units
    images = images if sizes.vision is not None else 0
    linears = [] if sizes.projector is None else [m for m in sizes.projector.modules() if isinstance(m, nn.Linear)]
    rows = images * sizes.image_tokens
    products = {
        "vision_tower": vision_products(sizes.vision, sizes.vision_layers) * images if images else [],
        "projector": [linear(rows, m.in_features, m.out_features) for m in linears if rows],
        **decoder_products(config, units, plan, prompt_tokens, prompt_tokens),
        "scheduler": scheduler_products(config, units),
    }
    prefill = {part: Cost.of(of_part, hardware) for part, of_part in products.items()}
    contexts = range(prompt_tokens + 1, prompt_tokens + gen_tokens)
    steps = [
        {part: Cost.of(of_part, hardware) for part, of_part in decoder_products(config, units, plan, 1, keys).items()}
        for keys in contexts
    ]
    decode = {part: total([step[part] for step in steps], len(steps)) for part in ("prefix", "tunable", "head")}
    return Estimate(prefill, decode, _memory(sizes, plan, prompt_tokens, gen_tokens), len(steps))


def total(costs: Iterable[Cost], shared_by: int = 1) -> Cost:
    """Their sum, or a ``shared_by``-th of it."""
    kept, count = list(costs), max(1, shared_by)
    return Cost(*(sum(getattr(cost, name) for cost in kept) / count for name in ("flops", "bytes", "seconds")))


def _memory(sizes: Sizes, plan: ExecutionPlan, prompt_tokens: int, gen_tokens: int) -> dict[str, float]:
    """Peak bytes: all weights, narrow copies of the layers that run in part, keys and values of the longest context,
    and the widest activations of prefill."""
    config, units = sizes.config, sizes.units
    full = ExecutionPlan.full(units.num_layers, units.num_switches)
    layer = _weights(config, full, 0)
    embeddings = (1 if config.tie_word_embeddings else 2) * config.hidden_size * config.vocab_size
    parts = {
        "decoder": units.num_layers * layer + embeddings,
        "vision_tower": 0 if sizes.vision is None else _tower_weights(sizes.vision),
        "projector": 0 if sizes.projector is None else sum(p.numel() for p in sizes.projector.parameters()),
        "narrow_layers": sum(
            _weights(config, plan, i) for i, x in enumerate(plan.layers) if not x.is_empty and not plan.is_full(i)
        ),
    }
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    heads = plan.heads_run * (config.num_key_value_heads // units.num_switches)
    parts["kv_cache"] = 2 * heads * head * (prompt_tokens + max(0, gen_tokens - 1))
    parts["activations"] = prompt_tokens * (2 * config.hidden_size + 2 * config.intermediate_size)
    return {part: float(numbers * NUMBER_BYTES) for part, numbers in parts.items()}


def _weights(config: Any, plan: ExecutionPlan, layer: int) -> int:
    """Numbers in the matrices of a layer under a plan: a product of no rows reads these alone."""
    return sum(p.numbers for p in layer_products(config, plan.layers[layer], plan.num_switches, 0, 0))


def _tower_weights(vision: Any) -> int:
    patch = vision.num_channels * vision.patch_size**2 * vision.hidden_size
    layer = 4 * vision.hidden_size**2 + 2 * vision.hidden_size * vision.intermediate_size
    return patch + vision.num_hidden_layers * layer
