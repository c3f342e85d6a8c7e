"""Applies LoRA adapters to their base model: what a folder with ``adapter_config.json`` adds to it."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from llava.errors import CheckpointError, OptionError
from llava.model.checkpoint.byte_order_mark import read_without_marks
from llava.model.checkpoint.weights_io import CheckpointWeights, Tensors, first_line, listed, read_json, read_weights
from llava.model.checkpoint.zero3 import gathered_parameters

log = logging.getLogger(__name__)

CONFIG_FILE = "adapter_config.json"
WEIGHT_FILES = ("adapter_model.safetensors", "adapter_model.bin")
OTHERS_FILE = "non_lora_trainables.bin"  # what was trained in full, in addition to the adapters
PREFIX = "base_model.model."  # how every key in both files starts, as peft's wrapper names them


def is_adapter(folder: Path) -> bool:
    """Return whether a folder holds a LoRA adapter."""
    return (folder / CONFIG_FILE).is_file()


def trained_on(folder: Path) -> str | None:
    """Return the name of the model that a folder's adapter was trained on, where its config has one."""
    name = read_json(folder / CONFIG_FILE).get("base_model_name_or_path")
    return str(name) if name else None


def trained_in_full(folder: Path) -> Tensors:
    """Read ``non_lora_trainables.bin`` under the model's own tensor names; nothing where there is no such file."""
    path = folder / OTHERS_FILE
    if not path.is_file():
        return {}
    return {key.removeprefix(PREFIX): tensor for key, tensor in read_weights(path).items()}


def fill(model: nn.Module, tensors: Tensors, source: str) -> None:
    """Copy ``tensors`` into the model. Raises CheckpointError for a name or shape that it does not have."""
    with gathered_parameters(parameter for name, parameter in model.named_parameters() if name in tensors):
        own = model.state_dict()
        if unknown := [name for name in tensors if name not in own]:
            raise CheckpointError(f"{source} holds tensors that the model does not have: {listed(unknown)}")
        for name, tensor in tensors.items():
            if tensor.shape != own[name].shape:
                raise CheckpointError(f"{name} in {source} is {tuple(tensor.shape)}; expected {tuple(own[name].shape)}")
            own[name].copy_(tensor)


def require_peft() -> Any:
    """Import peft. Raises an OptionError that names the extra that brings it."""
    try:
        import peft
    except ImportError as error:
        raise OptionError("LoRA needs the extra 'train': pip install 'ada-llava[train]'") from error
    return peft


def adapter_keys(folder: Path) -> set[str]:
    """Return the names of an adapter's tensors, as its file has them. Raises CheckpointError where there is no file."""
    files = [folder / name for name in WEIGHT_FILES if (folder / name).is_file()]
    if not files:
        raise CheckpointError(f"{folder} has {CONFIG_FILE}, but none of {', '.join(WEIGHT_FILES)}")
    return set(CheckpointWeights(files[:1]))


def apply_adapter(model: PreTrainedModel, folder: Path, merge: bool) -> Any:
    """Apply a folder's adapter to the model's layers, merged into their weights or next to them.

    Raises CheckpointError where adapter and model do not fit.
    """
    peft = require_peft()
    found = adapter_keys(folder)
    read_json(folder / CONFIG_FILE)
    try:
        with warnings.catch_warnings():  # the library asks a model for what transformers has renamed
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
            wrapped = read_without_marks(folder, lambda readable: peft.PeftModel.from_pretrained(model, readable))
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"the adapter in {folder} does not fit the base model: {first_line(error)}; is it the model that the "
            "adapter was trained on?"
        ) from error
    # The library fills what it finds, and warns about the rest.
    needed = set(peft.get_peft_model_state_dict(wrapped, save_embedding_layers=False))
    if misfits := sorted(needed - found) or sorted(key for key in found - needed if ".lora_" in key):
        kind = "lacks" if misfits[0] in needed else "does not place"
        raise CheckpointError(
            f"the adapter in {folder} does not fit the layers that its {CONFIG_FILE} and the base make: it {kind} "
            f"{listed(misfits)}; name the model that it was trained on, or copy it again"
        )
    if not merge:
        return wrapped.get_base_model()
    log.info("the adapter in %s is merged into its base model's weights", folder)
    return wrapped.merge_and_unload()
