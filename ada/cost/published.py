"""The cost figures as the published AdaLLaVA code states them, so that the paper's can be checked.

It is the roofline method of LLM-Viewer (Yuan et al. 2024, arXiv 2402.16363) on the decoder alone. What it leaves out or
counts in its own way, and ``ada.cost`` does not: vision tower, projector and scheduler are left out; the output layer
counts one operation for a multiply-add, and no memory; a layer's products, weights and activations are all scaled by
the kept share of its heads, an MLP's too; stored keys and values, and in decode the ones read, are those of all heads,
while prefill reads as many as there are query heads. Its sum of memory over the steps of a generation is
``summed_memory`` here, beside the peak.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ada.cost.hardware import plain_name
from llava.errors import OptionError

# name -> bytes a second, FP16 operations a second, the same in INT8 (0: none is stated)
HARDWARE: Mapping[str, tuple[float, float, float]] = {
    "nvidia_V100": (900e9, 112e12, 62e12),
    "nvidia_A6000": (768e9, 154.8e12, 309.7e12),
    "nvidia_A6000_Ada": (960e9, 364.2e12, 728.5e12),
    "nvidia_A100": (1555e9, 312e12, 624e12),
    "nvidia_A100_40G": (1555e9, 312e12, 624e12),
    "nvidia_A100_80G": (2039e9, 312e12, 624e12),
    "nvidia_A800_80G_SXM": (2039e9, 312e12, 624e12),
    "nvidia_A40": (696e9, 149.7e12, 299.3e12),
    "nvidia_H100": (3072e9, 989.5e12, 1979e12),
    "nvidia_H100_SXM": (3072e9, 989.5e12, 1979e12),
    "nvidia_H100_PCIe": (2048e9, 756.5e12, 1513e12),
    "nvidia_L40": (864e9, 181e12, 362e12),
    "intel_13900k": (89.6e9, 1382.4e9, 0.0),
}


@dataclass(frozen=True)
class Setting:
    """Sequences at once, bits of weights, activations and cached keys and values, and whether attention is fused."""

    batch: int = 1
    weight_bits: int = 16
    activation_bits: int = 16
    cache_bits: int = 16
    flash_attention: bool = False


@dataclass(frozen=True)
class Step:
    """One pass through the decoder: operations, seconds, and bytes of weights, of activations and of new cache."""

    flops: float
    seconds: float
    weights: float
    activations: float
    stored: float


def published_figures(
    config: Any,
    heads: Sequence[float],
    hardware: str,
    prompt_tokens: int,
    gen_tokens: int,
    setting: Setting | None = None,
) -> dict[str, float]:
    """``flops, avg_flops, prefill_flops`` (operations), ``prefill_time`` (seconds), ``memory_consumption`` (the peak)
    and ``prefill_memory_consumption`` (bytes); ``summed_memory``: over all steps, which the published code calls
    memory_consumption.

    heads: attention heads that run by layer. Of ``gen_tokens`` tokens the first comes out of prefill.
    """
    setting = setting or Setting()
    prefill = _step(config, heads, hardware, prompt_tokens, prompt_tokens, setting, decode=False)
    decode = [
        _step(config, heads, hardware, 1, prompt_tokens + step, setting, decode=True) for step in range(gen_tokens - 1)
    ]
    flops = prefill.flops + sum(step.flops for step in decode)
    kept, held = prefill.stored, [prefill.weights + prefill.stored + prefill.activations]
    for step in decode:
        held.append(step.weights + kept + step.activations)  # the step's own key and value are in the next one's
        kept += step.stored
    return {
        "flops": flops,
        "avg_flops": flops / gen_tokens,
        "prefill_flops": prefill.flops,
        "prefill_time": prefill.seconds,
        "memory_consumption": max(held),
        "prefill_memory_consumption": held[0],
        "summed_memory": sum(held),
    }


def _step(
    config: Any, heads: Sequence[float], hardware: str, queries: int, keys: int, setting: Setting, decode: bool
) -> Step:
    each = {kept: layer_step(config, kept, hardware, queries, keys, setting, decode) for kept in {*heads} if kept > 0}
    layers = [each[kept] for kept in heads if kept > 0]
    output = setting.batch * config.hidden_size * config.vocab_size
    return Step(
        sum(layer.flops for layer in layers) + output,
        sum(layer.seconds for layer in layers) + _output_seconds(config, hardware, setting),
        sum(layer.weights for layer in layers),
        layers[-1].activations if layers else 0,  # of the last layer that runs
        sum(layer.stored for layer in layers),
    )


def _output_seconds(config: Any, hardware: str, setting: Setting) -> float:
    bandwidth, peak = _speed(hardware, setting)
    weights = config.hidden_size * config.vocab_size * setting.weight_bits / 8
    moved = weights + setting.batch * (config.hidden_size + config.vocab_size) * setting.activation_bits / 8
    return max(setting.batch * config.hidden_size * config.vocab_size / peak, moved / bandwidth)


def layer_step(
    config: Any, kept: float, hardware: str, queries: int, keys: int, setting: Setting, decode: bool
) -> Step:
    """A layer with ``kept`` of its heads: ``queries`` new positions, ``keys`` to attend to."""
    width, heads, groups = config.hidden_size, config.num_attention_heads, config.num_key_value_heads
    size, neurons, share = width // heads, config.intermediate_size, kept / heads
    weight, act, cache = setting.weight_bits / 8, setting.activation_bits / 8, setting.cache_bits / 8
    rows = setting.batch * queries
    ops: list[tuple[float, float]] = []  # operations, bytes moved
    weights = activations = stored = 0.0
    for inner, outer, kind in (
        (width, width, "q"),
        (width, groups * size, "kv"),
        (width, groups * size, "kv"),
        (width, width, "o"),
        (width, neurons, "gate"),
        (width, neurons, "up"),
        (neurons, width, "down"),
    ):
        held, read = inner * outer * weight * share, rows * inner * act * share
        out = 0.0 if kind == "kv" else rows * outer * act * share
        new = rows * outer * cache if kind == "kv" else 0.0
        ops.append((2 * rows * inner * outer * share, held + read + out + new))
        weights, activations, stored = weights + held, activations + out, stored + new
    scores = setting.batch * heads * queries * keys * share
    product = 2 * scores * size
    read_cache = setting.batch * keys * size * cache * (groups if decode else kept)
    attended = rows * width * act * share
    if setting.flash_attention:  # keys and values are read again for each block of as many queries as a head is wide
        blocks = -(-queries // size)
        ops.append((2 * product + 5 * scores, attended + 2 * scores * act + 2 * blocks * read_cache))
    else:
        ops += [(product, attended + scores * act + read_cache)] * 2  # queries by keys, scores by values
        ops.append((5 * scores, 2 * scores * act))  # softmax
        activations += attended
    ops += [(7 * rows * width, 2 * rows * width * act)] * 2  # norms
    ops += [(rows * width, 2 * rows * width * act)] * 2  # residual additions
    ops.append((2 * rows * width * share, 3 * rows * width * act * share))  # activation function
    activations += 2 * scores * act + 4 * rows * width * act + rows * width * act * share
    bandwidth, peak = _speed(hardware, setting)
    seconds = sum(max(flops / peak, moved / bandwidth) for flops, moved in ops)
    return Step(sum(flops for flops, _ in ops), seconds, weights, activations, stored)


def _speed(hardware: str, setting: Setting) -> tuple[float, float]:
    """Bytes and operations a second; whole numbers are multiplied where nothing has more than 8 bits."""
    found = {plain_name(name): row for name, row in HARDWARE.items()}.get(plain_name(hardware))
    if found is None:
        raise OptionError(f"hardware {hardware!r} is not in the published table; it has {', '.join(HARDWARE)}")
    bandwidth, half, whole = found
    short = max(setting.weight_bits, setting.activation_bits, setting.cache_bits) <= 8
    if short and not whole:
        raise OptionError(f"the published table has no 8-bit speed for {hardware}")
    return bandwidth, whole if short else half
