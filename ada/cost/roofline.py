"""Time, traffic and memory of an answer on a device that is not at hand, by the roofline method.

A matrix product takes as long as its arithmetic or as its reading and writing, whichever is longer (Williams, Waterman
and Patterson 2009); products follow one another. Norms, activations and what starts a kernel are left out, so that the
figures are a lower bound: compare plans by them, and measure for the truth. Attention is fused: scores stay on the
chip.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ada.cost.hardware import Hardware
from ada.scheduling.execution_plan import ExecutionPlan, LayerPlan
from ada.scheduling.latency_token import ENCODING_SIZE
from ada.scheduling.units import Units

NUMBER_BYTES = 2  # bfloat16 or float16


@dataclass(frozen=True)
class Product:
    """A matrix product: operations, two for each multiply-add, and numbers read and written."""

    flops: int
    numbers: int

    def seconds(self, hardware: Hardware) -> float:
        """On the roof."""
        return max(self.flops / hardware.flops, self.numbers * NUMBER_BYTES / hardware.bandwidth)


@dataclass(frozen=True)
class Cost:
    """Operations, bytes moved and seconds."""

    flops: float
    bytes: float
    seconds: float

    @classmethod
    def of(cls, products: Iterable[Product], hardware: Hardware) -> Cost:
        """One after the other."""
        kept = list(products)
        return cls(
            sum(p.flops for p in kept),
            sum(p.numbers for p in kept) * NUMBER_BYTES,
            sum(p.seconds(hardware) for p in kept),
        )


def linear(rows: int, inner: int, outer: int) -> Product:
    """(rows, inner) x (inner, outer)."""
    return Product(2 * rows * inner * outer, inner * outer + rows * (inner + outer))


def attention(queries: int, keys: int, query_width: int, key_width: int) -> Product:
    """Queries by keys, scores by values; ``*_width``: all heads together."""
    return Product(4 * queries * keys * query_width, 2 * queries * query_width + 2 * keys * key_width)


def layer_products(config: Any, plan: LayerPlan, switches: int, queries: int, keys: int) -> list[Product]:
    """One decoder layer under a plan."""
    if plan.is_empty:
        return []
    hidden = config.hidden_size
    head = getattr(config, "head_dim", None) or hidden // config.num_attention_heads
    key_width = len(plan.heads) * (config.num_key_value_heads // switches) * head
    query_width = key_width * (config.num_attention_heads // config.num_key_value_heads)
    neurons = plan.neurons(config.intermediate_size, switches)
    products = []
    if plan.heads:
        products += [linear(queries, hidden, query_width), linear(queries, query_width, hidden)]
        products += [linear(queries, hidden, key_width)] * 2
        products.append(attention(queries, keys, query_width, key_width))
    if plan.neuron_groups:
        products += [linear(queries, hidden, neurons)] * 2 + [linear(queries, neurons, hidden)]
    return products


def decoder_products(
    config: Any, units: Units, plan: ExecutionPlan, queries: int, keys: int
) -> dict[str, list[Product]]:
    """The decoder's layers, split at layer P, and the head for one position."""
    each = [layer_products(config, layer, plan.num_switches, queries, keys) for layer in plan.layers]
    first = units.num_prefix_layers
    return {
        "prefix": [p for layer in each[:first] for p in layer],
        "tunable": [p for layer in each[first:] for p in layer],
        "head": [linear(1, config.hidden_size, config.vocab_size)],
    }


def vision_products(vision: Any, layers: int) -> list[Product]:
    """The first ``layers`` layers of a CLIP vision tower on one picture; ``vision`` is its config."""
    patches = (vision.image_size // vision.patch_size) ** 2
    tokens, width, inner = patches + 1, vision.hidden_size, vision.intermediate_size
    layer = [linear(tokens, width, width)] * 4 + [attention(tokens, tokens, width, width)]
    layer += [linear(tokens, width, inner), linear(tokens, inner, width)]
    return [linear(patches, vision.num_channels * vision.patch_size**2, width), *(layer * layers)]


def scheduler_products(config: Any, units: Units) -> list[Product]:
    """The latency encoder and the scoring head, once a prompt."""
    width = config.hidden_size
    scores = units.num_tunable_layers * (1 if units.kind == "L" else 2 * units.num_switches)
    return [linear(1, ENCODING_SIZE, width), linear(1, width, width), linear(1, width, scores)]
