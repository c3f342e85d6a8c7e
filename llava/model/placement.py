"""Chooses a model's device, dtype, attention implementation and quantisation."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import BitsAndBytesConfig, PreTrainedModel

from llava.errors import OptionError
from llava.utils import device_available

log = logging.getLogger(__name__)

# A 16-bit checkpoint of more bytes stays 16-bit on the CPU, as twice its size may not fit; a smaller one is widened,
# which is more exact, and faster on most CPUs. Those that multiply bfloat16 are faster with it, but for tiny models.
LARGE_BYTES = 4 << 30
MEDIUM_BYTES = 64 << 20
QUANTISED = (".absmax", ".SCB")  # how names of tensors end that go with weights of 4 and of 8 bits


def usable_device(device: str) -> str:
    """Return ``device``, or the CPU where it is not available. Raises OptionError for an unknown kind."""
    kind = device.partition(":")[0]
    if kind not in ("cuda", "mps", "cpu"):
        raise OptionError(f"the device is {device!r}; expected cuda, cuda:N, mps or cpu")
    if device_available(kind):
        return device
    log.warning("the device %s is not available; using the CPU", device)
    return "cpu"


def fitting_dtype(device: str, fields: Mapping[str, Any], weight_files: Sequence[Path]) -> torch.dtype:
    """Return the dtype in which a checkpoint with these config fields and weight files runs well on a device."""
    saved = fields.get("dtype") or fields.get("torch_dtype") or "float32"
    kind = device.partition(":")[0]
    if kind == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)  # a V100 or T4 takes it, but slowly
        return torch.bfloat16 if saved == "bfloat16" and native else torch.float16
    if kind == "mps":
        return torch.float16
    stored = sum(file.stat().st_size for file in weight_files)
    if saved == "bfloat16" and stored > MEDIUM_BYTES and multiplies_bfloat16():
        return torch.bfloat16
    return torch.bfloat16 if stored > LARGE_BYTES and saved in ("bfloat16", "float16") else torch.float32


def multiplies_bfloat16() -> bool:
    """Return whether this processor has instructions for products of bfloat16."""
    checks = (getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("avx512_bf16", "amx_tile"))
    return any(check is not None and check() for check in checks)


def placing(
    device: str, device_map: str | dict[str, Any] | None, load_8bit: bool = False, load_4bit: bool = False
) -> dict[str, Any]:
    """Return ``from_pretrained``'s keyword for where the weights go.

    Only several GPUs, and 4-bit weights, need a map; anything else is moved once it is read. 8-bit weights are made
    before that, so that a GPU need not hold the others, unless a map was given that is not "auto".
    """
    if device == "cuda" and device_map is not None and not (load_8bit and device_map == "auto"):
        return {"device_map": device_map}
    return {"device_map": {"": device}} if load_4bit else {}


ATTENTION = ("eager", "sdpa", "flash_attention_2", "flex_attention")


def attention(use_flash_attn: bool, implementation: str | None = None) -> dict[str, Any]:
    """Return ``from_pretrained``'s keyword for the kind of attention; none for transformers' own choice.

    Raises OptionError for an unknown kind, and for flash attention where it is not installed.
    """
    kind = "flash_attention_2" if use_flash_attn else implementation
    if kind is None:
        return {}
    if kind not in ATTENTION:
        raise OptionError(f"attn_implementation is {kind!r}; expected {', '.join(ATTENTION)}")
    if kind == "flash_attention_2":
        try:
            import flash_attn  # type: ignore[import-not-found]  # noqa: F401
        except ImportError as error:
            raise OptionError("flash attention needs the extra 'flash': pip install 'ada-llava[flash]'") from error
    return {"attn_implementation": kind}


def quantisation(
    load_4bit: bool, dtype: torch.dtype, kept_modules: tuple[str, ...] = ("model.mm_projector", "lm_head")
) -> BitsAndBytesConfig:
    """Make the config of NF4 with double quantisation, or of LLM.int8().

    Modules whose names begin as one of ``kept_modules`` stay as they are. Raises OptionError without bitsandbytes.
    """
    require_bitsandbytes()
    kept = list(kept_modules)
    if not load_4bit:
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=kept)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_compute_dtype=dtype,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_quant_type="nf4",
        llm_int8_skip_modules=kept,
    )


def as_stored(fields: dict[str, Any], names: Callable[[], Iterable[str]]) -> dict[str, Any]:
    """Return a config's fields without a quantisation of bitsandbytes' that the weights do not have.

    QLoRA's training, and merging its result, leave there how the base was loaded; transformers would take weights of 16
    bits for packed ones. names: returns those of the weights, which are only read where it matters.
    """
    found = fields.get("quantization_config")
    if not isinstance(found, Mapping) or found.get("quant_method", "bitsandbytes") != "bitsandbytes":
        return fields
    if any(name.endswith(QUANTISED) for name in names()):
        return fields
    log.info("config.json has a quantization_config, but the weights are not quantised: it is not used")
    return {name: value for name, value in fields.items() if name != "quantization_config"}


def require_bitsandbytes() -> Any:
    """Import bitsandbytes. Raises an OptionError that names the extra that brings it."""
    try:
        import bitsandbytes
    except ImportError as error:
        raise OptionError(
            "4-bit weights, and 8-bit ones in training, need the extra 'quant': pip install 'ada-llava[quant]'"
        ) from error
    # It says at every product of 8-bit weights that their inputs are rounded.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    return bitsandbytes


def avoid_packing(model: nn.Module) -> None:
    """Keep 4-bit projections as they are stored where the library's fast kernel for CPUs cannot take their shape.

    The library packs weights for that kernel before the first product, in tiles of 32 rows and in scales of whole
    blocks along a row, and fails on any other shape; without it the same product is done in its general way.
    """
    for module in model.modules():
        state = getattr(getattr(module, "weight", None), "quant_state", None)
        if state is not None and (state.shape[0] % 32 or state.shape[1] % state.blocksize):
            setattr(module, "support_avx512bf16_for_cpu", False)  # noqa: B010 - no attribute of nn.Module


def placed(model: PreTrainedModel, device: str, loading: Mapping[str, Any]) -> Any:
    """Move a model to its device; one that was loaded with a device map is there already."""
    return model if "device_map" in loading else model.to(device)
