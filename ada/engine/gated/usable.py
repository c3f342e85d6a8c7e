"""Says whether the gated kernels can run on a device, and a decoder's layers in them."""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
import subprocess
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ada.execution.layer_weights import projections

if TYPE_CHECKING:
    from ada.engine.gated.gated_step import GatedStep
    from ada.engine.gated.slots import KeyValueSlots

log = logging.getLogger(__name__)

MIN_CAPABILITY = (8, 0)  # the first GPUs that multiply bfloat16


def gated_step(model: Any, slots: KeyValueSlots) -> GatedStep | None:
    """Return a gated step of the rows in ``slots``, None where the torch step has to run."""
    device = model.model.embed_tokens.weight.device
    if device.type != "cuda" or reason_against_device(device) or reason_against_decoder(model):
        return None
    from ada.engine.gated.gated_step import GatedStep  # imports Triton

    return GatedStep(model, slots)


def reason_against_device(device: torch.device) -> str | None:
    """Return why the gated kernels cannot run on ``device``, None where they can.

    On a CPU they run under Triton's interpreter, which is slow and for tests: where ``TRITON_INTERPRET=1`` was set
    before Triton was imported.
    """
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    if device.type == "cuda":
        found = torch.cuda.get_device_capability(device)
        if found >= MIN_CAPABILITY:
            return _reason_against_compiling()
        return f"the GPU's compute capability is {found[0]}.{found[1]}; the kernels need 8.0"
    if device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1":
        return None
    return f"the kernels need a CUDA device, not {device.type}"


@functools.cache
def _reason_against_compiling() -> str | None:
    """Try what Triton compiles first, its driver: it needs a C compiler and Python's headers, which torch does not."""
    from triton.runtime import driver  # type: ignore[import-not-found,import-untyped,unused-ignore]

    try:
        driver.active  # noqa: B018
    except (ImportError, OSError, RuntimeError, subprocess.SubprocessError) as error:
        log.warning("Triton cannot compile, so decoding takes a launch an operation: %s", error)
        return f"Triton cannot compile: {error}"
    return None


def reason_against_decoder(model: Any) -> str | None:
    """Return what of a decoder that the engine decodes otherwise speaks against the kernels; None where nothing does.

    model: a causal language model of Llama's layout, with ``config`` and ``model.layers``.
    """
    if model.config.hidden_act != "silu":
        return f"the MLP's activation is {model.config.hidden_act!r}; the kernels compute 'silu'"
    if not all(_can_read(linear) for layer in model.model.layers for linear in projections(layer)):
        return "some weights are neither floats nor 8-bit integers with a scale for each output channel"
    return None


def _can_read(linear: Any) -> bool:
    """Whether a projection is a matrix (out, in) in memory: of floats, or of 8-bit integers with scales (out,)."""
    weight = getattr(linear, "weight", None)
    if not isinstance(weight, torch.Tensor) or weight.is_meta or weight.dim() != 2 or not weight.is_contiguous():
        return False
    if weight.dtype == torch.int8:
        scale = getattr(linear, "scale", None)
        return isinstance(scale, torch.Tensor) and scale.shape == weight.shape[:1]
    return type(linear) is nn.Linear and weight.dtype in (torch.float32, torch.bfloat16, torch.float16)
