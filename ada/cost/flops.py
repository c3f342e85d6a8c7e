"""Adds up the floating-point operations of a plan by part, for the report on an answer."""

from __future__ import annotations

from typing import Any

from ada.cost.products import LateReading, Products, decoder_products, prefill_products
from ada.scheduling.execution_plan import ExecutionPlan
from ada.scheduling.units import Units
from llava.protocols import DecoderConfig

Flops = dict[str, int]
"""FLOPs by part: ``vision_tower, projector, prefix, tunable, lm_head, scheduler``."""


def prefill_flops(config: DecoderConfig, units: Units, plan: ExecutionPlan, prompt_tokens: int, **parts: Any) -> Flops:
    """Count the FLOPs of a prefill by part; ``parts`` are the keyword arguments of ``prefill_products``."""
    return flops_of(prefill_products(config, units, plan, prompt_tokens, **parts))


def decoder_flops(
    config: DecoderConfig,
    units: Units,
    plan: ExecutionPlan,
    queries: int,
    keys: int,
    scored: int = 1,
    late: LateReading | None = None,
) -> Flops:
    """Count the FLOPs of the decoder's layers, split at layer P, and of the output layer for ``scored`` positions."""
    return flops_of(decoder_products(config, units, plan, queries, keys, scored, late))


def decode_flops(
    config: DecoderConfig, units: Units, plan: ExecutionPlan, context_tokens: int, late: LateReading | None = None
) -> Flops:
    """Count the FLOPs by part of one generated token that attends to ``context_tokens`` positions, itself included.

    late: what later layers attend to, where that is less.
    """
    return decoder_flops(config, units, plan, 1, context_tokens, late=late)


def flops_of(products: Products) -> Flops:
    """Add up the FLOPs of each part."""
    return {part: sum(product.flops for product in of_part) for part, of_part in products.items()}
