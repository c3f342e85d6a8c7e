"""Says whether the gated kernels can run on a device, and a decoder's layers in them."""

from __future__ import annotations

import importlib.util
import os
from typing import Any

import torch
from torch import nn

MIN_CAPABILITY = (8, 0)  # the first GPUs that multiply bfloat16
STATIC_ROTATIONS = ("default", "linear", "llama3", "yarn")


def reason_against(device: torch.device) -> str | None:
    """Return why the gated kernels cannot run on ``device``, None where they can.

    On a CPU they run under Triton's interpreter, which is slow and for tests: where ``TRITON_INTERPRET=1`` was set
    before Triton was imported.
    """
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    if device.type == "cuda":
        found = torch.cuda.get_device_capability(device)
        if found >= MIN_CAPABILITY:
            return None
        return f"the GPU's compute capability is {found[0]}.{found[1]}; the kernels need 8.0"
    if device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1":
        return None
    return f"the kernels need a CUDA device, not {device.type}"


def reason_against_decoder(model: Any) -> str | None:
    """Return why the gated kernels cannot run a decoder's layers, None where they can.

    model: a causal language model of Llama's layout, with ``config``, ``model.layers`` and ``model.rotary_emb``.
    """
    config, decoder = model.config, model.model
    rope_type = getattr(decoder.rotary_emb, "rope_type", "default")
    if rope_type not in STATIC_ROTATIONS:
        return f"rotations of type {rope_type!r} change with a prompt's length"
    if config.hidden_act != "silu":
        return f"the MLP's activation is {config.hidden_act!r}; the kernels compute 'silu'"
    if _has_windows(config):
        return "some layers attend to a sliding window"
    if any(hasattr(layer.self_attn, "q_norm") for layer in decoder.layers):
        return "queries and keys are normalised"
    if not all(_can_read(linear) for layer in decoder.layers for linear in _projections(layer)):
        return "some weights are quantised in blocks, adapted (LoRA) or offloaded"
    return None


def _has_windows(config: Any) -> bool:
    kinds = getattr(config, "layer_types", None)
    if kinds is None:
        return getattr(config, "sliding_window", None) is not None
    return any(kind != "full_attention" for kind in kinds)


def _projections(layer: Any) -> list[Any]:
    attention, mlp = layer.self_attn, layer.mlp
    joined = [attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj]
    return [*joined, mlp.gate_proj, mlp.up_proj, mlp.down_proj]


def _can_read(linear: Any) -> bool:
    """Whether a projection is a matrix (out, in) in memory: of floats, or of 8-bit integers with scales (out,)."""
    weight = getattr(linear, "weight", None)
    if not isinstance(weight, torch.Tensor) or weight.is_meta or weight.dim() != 2 or not weight.is_contiguous():
        return False
    if weight.dtype == torch.int8:
        scale = getattr(linear, "scale", None)
        return isinstance(scale, torch.Tensor) and scale.shape == weight.shape[:1]
    return type(linear) is nn.Linear and weight.dtype in (torch.float32, torch.bfloat16, torch.float16)
