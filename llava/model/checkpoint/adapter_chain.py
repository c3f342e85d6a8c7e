"""Finds what a LoRA adapter was trained on: a full model, or another adapter and what that was trained on."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from llava.errors import CheckpointError, LlavaError
from llava.model.checkpoint.folder import PROJECTOR_FILES, CheckpointFolder, CheckpointKind, open_checkpoint
from llava.model.checkpoint.lora import CONFIG_FILE, OTHERS_FILE, WEIGHT_FILES, trained_on
from llava.model.checkpoint.model_cache import cached_model
from llava.model.checkpoint.neuron_order import ORDER_FILE
from llava.model.checkpoint.weights_io import find_weight_files

MAX_ADAPTERS = 8  # on top of one another: more are a circle
HOW_TO_MAKE_BASE = "base_model_command"  # in config.json: what makes the model that the adapter was trained on


def base_of(folder: CheckpointFolder, model_base: str | None = None) -> CheckpointFolder:
    """Open the model that an adapter was trained on: ``model_base``, else the one that its config names.

    A relative name is looked for next to the adapter first. Raises CheckpointError where it is not found.
    """
    if model_base:
        return open_checkpoint(model_base)
    name = trained_on(folder.path)
    neighbour = folder.path / name if name else None
    if name and neighbour is not None and neighbour.is_dir():
        return open_checkpoint(str(neighbour))
    if name and (Path(name).is_dir() or cached_model(name).is_dir()):
        return open_checkpoint(name)
    command = folder.fields.get(HOW_TO_MAKE_BASE)
    if name and command:
        raise CheckpointError(
            f"{folder.path} is an adapter of {name}, which is not on this machine; make it: {command}"
        )
    found = f"; its {CONFIG_FILE} names {name!r}, which is no folder here" if name else ""
    raise CheckpointError(
        f"{folder.path} holds a LoRA adapter{found}; name the model that it was trained on (--model-base), or merge it "
        "with scripts/merge_lora_weights.py"
    )


def adapter_chain(folder: CheckpointFolder, model_base: str | None = None) -> list[CheckpointFolder]:
    """Return an adapter and what it was trained on, in order, down to the model that is none.

    Raises CheckpointError where one is not found, or an adapter was trained on itself.
    """
    chain = [folder, base_of(folder, model_base)]
    while chain[-1].kind is CheckpointKind.LORA:
        if len(chain) > MAX_ADAPTERS:
            raise CheckpointError(f"{folder.path} is an adapter of more than {MAX_ADAPTERS} adapters, or of itself")
        chain.append(base_of(chain[-1]))
    return chain


def weight_files(folder: Path) -> list[Path]:
    """Return the files of weights in a checkpoint's folder: a model's, a projector's, an adapter's."""
    others = (folder / name for name in (*PROJECTOR_FILES, *WEIGHT_FILES, OTHERS_FILE, ORDER_FILE))
    return sorted([*find_weight_files(folder), *(path for path in others if path.is_file())])


def folders_of(path: Path, model_base: str | None = None) -> list[Path]:
    """Return all folders that a checkpoint's answers come from: its own first, then what it was trained on.

    Raises CheckpointError where an adapter's base is not found.
    """
    folder = CheckpointFolder.open(path, needs_config=False)
    if folder.kind is CheckpointKind.LORA:
        return [one.path for one in adapter_chain(folder, model_base)]
    of_projector = folder.kind is CheckpointKind.PROJECTOR and model_base is not None
    return [path, open_checkpoint(str(model_base)).path] if of_projector else [path]


def is_complete(path: Path) -> bool:
    """Return whether a checkpoint folder's models are all on this machine, and can be put together here."""
    folder = CheckpointFolder.open(path)
    if folder.kind is not CheckpointKind.LORA:
        return True
    try:
        adapter_chain(folder)
    except LlavaError:
        return False
    return importlib.util.find_spec("peft") is not None
