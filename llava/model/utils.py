"""Upgrades the config of LLaVA's first checkpoints in place, under upstream's name."""

from __future__ import annotations

import json

from llava.errors import CheckpointError, OptionError
from llava.files.atomic_write import atomic_write
from llava.model.checkpoint.folder import open_checkpoint
from llava.model.families import BEFORE_1_5, FAMILIES

DECODER = next(family for family in FAMILIES if family.decoder_type == "llama")


def auto_upgrade(config: str) -> None:
    """Give a checkpoint folder of before LLaVA 1.5, whose config.json names the bare decoder, LLaVA's ``model_type``.

    Nothing is done for other checkpoints: those that name a LLaVA, and those without "llava" in their path. The user
    is asked on the terminal first. Raises OptionError where that is refused, or there is no terminal, and
    CheckpointError for a decoder other than Llama. ``llava.model.consolidate`` writes a new folder instead.
    """
    folder = open_checkpoint(config)
    kind = folder.fields.get("model_type", "")
    if "llava" not in config.lower() or "llava" in kind or folder.hub_layout:
        return
    if kind != DECODER.decoder_type:
        raise CheckpointError(f"{folder.config_file} has model_type {kind!r}; LLaVA's first checkpoints have 'llama'")
    if not _confirmed(f"{folder.config_file} is of LLaVA's first release. Write its new model_type into it? [y/n] "):
        raise OptionError(f"{folder.path} is left as it was; python -m llava.model.consolidate writes a new folder")
    fields = {**folder.fields, "model_type": BEFORE_1_5, "architectures": [DECODER.model_class.__name__]}
    atomic_write(folder.config_file, json.dumps(fields, indent=2) + "\n")


def _confirmed(question: str) -> bool:
    try:
        return input(question).strip().lower() in ("y", "yes")
    except EOFError:
        return False
