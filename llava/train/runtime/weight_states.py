"""Collects parameters by name under upstream's functions, gathered where DeepSpeed's ZeRO-3 shards them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import torch
from torch import nn

from llava.errors import OptionError
from llava.model.checkpoint.zero3 import gathered_parameters

NamedParameters = Iterable[tuple[str, nn.Parameter]] | Mapping[str, nn.Parameter]


def maybe_zero_3(param: nn.Parameter, ignore_status: bool = False, name: str | None = None) -> torch.Tensor:
    """Return a parameter's values on the CPU; every process must call this for one that is sharded.

    ``ignore_status`` and ``name`` are upstream's and have no effect.
    """
    with gathered_parameters([param]):
        return param.detach().cpu().clone()


def get_peft_state_maybe_zero_3(named_params: NamedParameters, bias: str) -> dict[str, torch.Tensor]:
    """Return the values of LoRA's parameters, and of the biases that ``--lora_bias`` names: none, all, lora_only.

    Raises OptionError for another ``bias``.
    """
    if bias not in ("none", "all", "lora_only"):
        raise OptionError(f"bias is {bias!r}; expected none, all or lora_only")
    params = dict(named_params)
    adapted = {name.partition("lora_")[0] + "bias" for name in params if "lora_" in name}

    def wanted(name: str) -> bool:
        return "lora_" in name or (bias == "all" and "bias" in name) or (bias == "lora_only" and name in adapted)

    return {name: maybe_zero_3(param) for name, param in params.items() if wanted(name)}


def get_peft_state_non_lora_maybe_zero_3(
    named_params: NamedParameters, require_grad_only: bool = True
) -> dict[str, torch.Tensor]:
    """Return the values of all parameters but LoRA's; with ``require_grad_only`` of those that are trained."""
    return {
        name: maybe_zero_3(param)
        for name, param in dict(named_params).items()
        if "lora_" not in name and (param.requires_grad or not require_grad_only)
    }


def get_mm_adapter_state_maybe_zero_3(
    named_params: NamedParameters, keys_to_match: Collection[str]
) -> dict[str, torch.Tensor]:
    """Return the values of the parameters whose names hold one of ``keys_to_match``, such as ``mm_projector``."""
    return {
        name: maybe_zero_3(param)
        for name, param in dict(named_params).items()
        if any(key in name for key in keys_to_match)
    }


def find_all_linear_names(model: nn.Module) -> list[str]:
    """Return the last parts of the names of all linear layers that LoRA may adapt, sorted.

    Those of vision tower and projector, and the output layer, are left out.
    """
    others = ("mm_projector", "vision_tower", "vision_resampler")
    names = {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not any(other in name for other in others)
    }
    return sorted(names - {"lm_head"})
