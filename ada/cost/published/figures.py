"""Computes the cost figures as the published AdaLLaVA code does, so that the paper's can be checked.

It is the roofline method of LLM-Viewer (Yuan et al. 2024, arXiv 2402.16363) on the decoder alone: vision tower,
projector and scheduler are left out; the output layer counts one operation for a multiply-add, and no memory. The
published code adds memory up over the steps of a generation; that sum is ``summed_memory`` here, next to the peak.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ada.cost.hardware import plain_name
from ada.cost.published.layer import LayerPass, Operation, Setting
from llava.errors import OptionError
from llava.protocols import DecoderConfig

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
class Speed:
    """A device's bytes and operations a second, as the published code picks them for a setting."""

    bandwidth: float
    flops: float

    @classmethod
    def of(cls, hardware: str, setting: Setting) -> Speed:
        """Return the speed of a row of ``HARDWARE``: in integers where nothing has more than 8 bits.

        Raises OptionError for a device that is not in the table, or that has no 8-bit speed there.
        """
        found = {plain_name(name): row for name, row in HARDWARE.items()}.get(plain_name(hardware))
        if found is None:
            raise OptionError(f"hardware {hardware!r} is not in the published table; it has {', '.join(HARDWARE)}")
        bandwidth, float_flops, integer_flops = found
        if max(setting.weight_bits, setting.activation_bits, setting.cache_bits) > 8:
            return cls(bandwidth, float_flops)
        if not integer_flops:
            raise OptionError(f"the published table has no 8-bit speed for {hardware}")
        return cls(bandwidth, integer_flops)

    def seconds(self, operation: Operation) -> float:
        """Return the longer of an operation's arithmetic and its memory traffic."""
        return max(operation.flops / self.flops, operation.moved / self.bandwidth)


@dataclass(frozen=True)
class Step:
    """One pass through a layer or the decoder: FLOPs, seconds, bytes of weights, of activations and of new cache."""

    flops: float
    seconds: float
    weights: float
    activations: float
    stored: float


def published_figures(
    config: DecoderConfig,
    heads: Sequence[float],
    hardware: str,
    prompt_tokens: int,
    gen_tokens: int,
    setting: Setting | None = None,
) -> dict[str, float]:
    """Return the published code's figures of a generation.

    These are ``flops, avg_flops, prefill_flops`` (FLOPs), ``prefill_time`` (seconds), ``memory_consumption`` (the peak)
    and ``prefill_memory_consumption`` (bytes), and ``summed_memory``, over all steps, which the published code calls
    memory_consumption. heads: attention heads that run, by layer. Of ``gen_tokens`` tokens the first comes out of
    prefill. Raises OptionError for hardware that the published table lacks.
    """
    setting = setting or Setting()
    prefill = decoder_step(config, heads, hardware, prompt_tokens, prompt_tokens, setting, decode=False)
    decode = [
        decoder_step(config, heads, hardware, 1, prompt_tokens + step, setting, decode=True)
        for step in range(gen_tokens - 1)
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


def decoder_step(
    config: DecoderConfig,
    heads: Sequence[float],
    hardware: str,
    queries: int,
    keys: int,
    setting: Setting,
    decode: bool,
) -> Step:
    """Return the cost of all layers, each with its number of ``heads``, and of the output layer."""
    speed = Speed.of(hardware, setting)
    steps = {
        kept: layer_step(LayerPass(config, setting, kept, queries, keys, decode), speed)
        for kept in {*heads}
        if kept > 0
    }
    layers = [steps[kept] for kept in heads if kept > 0]
    output = _output_layer(config, setting)
    return Step(
        sum(layer.flops for layer in layers) + output.flops,
        sum(layer.seconds for layer in layers) + speed.seconds(output),
        sum(layer.weights for layer in layers),
        layers[-1].activations if layers else 0,  # of the last layer that runs
        sum(layer.stored for layer in layers),
    )


def layer_step(layer: LayerPass, speed: Speed) -> Step:
    """Return the cost of one layer: the sums over its operations, one after the other."""
    operations = layer.operations().values()
    return Step(
        sum(operation.flops for operation in operations),
        sum(speed.seconds(operation) for operation in operations),
        sum(operation.weights for operation in operations),
        sum(operation.written for operation in operations),
        sum(operation.stored for operation in operations),
    )


def _output_layer(config: DecoderConfig, setting: Setting) -> Operation:
    """Return the output layer for the last position: one operation for a multiply-add."""
    weights = config.hidden_size * config.vocab_size * setting.weight_bits / 8
    moved = setting.batch * (config.hidden_size + config.vocab_size) * setting.activation_bits / 8
    return Operation(setting.batch * config.hidden_size * config.vocab_size, weights=weights, read=moved)
