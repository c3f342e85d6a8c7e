"""Subtracts a base model from a checkpoint, and adds it again: weights are published so where a licence asks for it.

Tensors that the base model lacks (the projector) are stored as they are, and so are the rows of a table after those
that the base has.
"""

from __future__ import annotations

from pathlib import Path

import torch

from llava.errors import CheckpointError
from llava.files.atomic_write import atomic_folder
from llava.model.checkpoint.checkpoint_tools import (
    GENERATION_FILE,
    TABLES,
    TOKENIZER_FILES,
    copy_files,
    copy_tower,
    refuse_used,
    save_tensors,
)
from llava.model.checkpoint.folder import CheckpointFolder, local_folder, open_checkpoint
from llava.model.checkpoint.weights_io import Tensors

ADDED = (
    *("model.mm_projector.", "model.vision_tower.", "model.image_newline"),
    *("transformer.mm_projector.", "transformer.vision_tower.", "transformer.image_newline"),  # on MPT's decoder
    *("scheduler.", "token_scorer."),
)


def combined(tensors: Tensors, base: Tensors, sign: int) -> Tensors:
    """Compute ``tensors + sign * base``, each in its own dtype.

    Raises CheckpointError where ``base`` is not the base of ``tensors``.
    """
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
    source = open_checkpoint(folder)
    if source.hub_layout:
        raise CheckpointError(
            f"{source.path} is in transformers' layout; make it LLaVA's first: "
            f"python -m llava.model.convert {source.path} NEW"
        )
    base_weights = CheckpointFolder.open(local_folder(base), needs_config=False).weights()
    result = combined(source.weights().read(), base_weights.read(), sign)
    with atomic_folder(target) as part:
        copy_files(source.path, part, ("config.json", GENERATION_FILE, *TOKENIZER_FILES))
        copy_tower(source.fields, source.path, part)
        save_tensors(result, part)
