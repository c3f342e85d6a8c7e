"""A checkpoint minus its base model, and back: how weights were published that may not be passed on themselves.

Tensors that the base model lacks (the projector) are stored whole. A table with rows for added tokens differs in its
first rows, and is stored whole behind them.
"""

from __future__ import annotations

from pathlib import Path

import torch

from llava.errors import CheckpointError
from llava.model.builder import local_folder
from llava.model.checkpoint.checkpoint_tools import (
    GENERATION_FILE,
    TABLES,
    TOKENIZER_FILES,
    copy_files,
    copy_tower,
    refuse_used,
    save_tensors,
)
from llava.model.checkpoint.hf_layout import is_hub_layout, open_weights
from llava.model.checkpoint.weights_io import Tensors, moved_when_whole, read_json

ADDED = ("model.mm_projector.", "model.vision_tower.", "model.image_newline", "scheduler.")


def combined(tensors: Tensors, base: Tensors, sign: int) -> Tensors:
    """``tensors + sign * base``, tensor by tensor, each in its own dtype. Raises CheckpointError where base is none."""
    if missing := [name for name in base if name not in tensors]:
        raise CheckpointError(f"the base model has {missing[0]}, which the other checkpoint lacks; is it its base?")
    return {name: _combine(name, tensor, base.get(name), sign) for name, tensor in tensors.items()}


def _combine(name: str, tensor: torch.Tensor, base: torch.Tensor | None, sign: int) -> torch.Tensor:
    if base is None:
        if not name.startswith(ADDED):
            raise CheckpointError(f"the base model has no {name}; is it the base of this checkpoint?")
        return tensor
    longer = name in TABLES and tensor.shape[0] >= base.shape[0] and tensor.shape[1:] == base.shape[1:]
    if tensor.shape != base.shape and not longer:
        raise CheckpointError(f"{name} is {tuple(tensor.shape)}, and {tuple(base.shape)} in the base model")
    if not tensor.dim():
        raise CheckpointError(f"{name} is a single number; expected the weights of a layer")
    result = tensor.clone()
    result[: len(base)] = (tensor[: len(base)].float() + sign * base.float()).to(tensor.dtype)
    return result


def write_combined(folder: str, base: str, target: Path, sign: int) -> None:
    """Read two checkpoints, and write the first plus or minus the second, with the first one's other files."""
    refuse_used(target)
    source = local_folder(folder)
    if is_hub_layout(read_json(source / "config.json")):
        raise CheckpointError(
            f"{source} is in transformers' layout; make it LLaVA's first: python -m llava.model.convert {source} NEW"
        )
    result = combined(open_weights(source).read(), open_weights(local_folder(base)).read(), sign)
    with moved_when_whole(target) as part:
        copy_files(source, part, ("config.json", GENERATION_FILE, *TOKENIZER_FILES))
        copy_tower(read_json(source / "config.json"), source, part)
        save_tensors(result, part)
