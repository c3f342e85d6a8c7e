"""Keeps what a run was started with, so that an output folder's checkpoints are resumed by that run alone."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from llava.errors import CheckpointError
from llava.files.atomic_write import atomic_write
from llava.model.checkpoint.weights_io import read_json
from llava.train.arguments import TrainingArguments
from llava.train.vision_settings import Arguments

FILE = "started_with.json"
# May change when a run goes on: they change neither what is learned nor what from.
_FREE = {"attn_implementation", "check_data", "check_data_only", "image_folder", "is_multimodal", "lazy_preprocess"}
_OF_TRAINING = ("bits", "freeze_mm_mlp_adapter", "lora_alpha", "lora_enable", "lora_r", "lora_weight_path")


def check_same_run(arguments: Arguments) -> None:
    """Compare the flags of a run that resumes with those in ``started_with.json`` in its output folder.

    Only what makes a run another one is compared: model, data, what is trained, and the flags of plug-ins; steps,
    learning rates and logs may change. Raises CheckpointError, naming the flags that differ. A folder without the file,
    of an earlier release, is taken as it is.
    """
    path = _path(arguments)
    if not path.is_file():
        return
    before, now = read_json(path), _flags(arguments)
    if changed := sorted(name for name, value in now.items() if name in before and before[name] != value):
        listed = ", ".join(f"--{name} {before[name]} (now {now[name]})" for name in changed)
        raise CheckpointError(
            f"{path.parent} holds the checkpoints of another run, with {listed}; name another --output_dir, or remove "
            f"{path} to go on with the new flags"
        )


def note_run(arguments: Arguments) -> None:
    """Write the flags of a run that begins to ``started_with.json``, in the process that saves."""
    if arguments[TrainingArguments].should_save:
        path = _path(arguments)
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, json.dumps(_flags(arguments), indent=2) + "\n")


def _path(arguments: Arguments) -> Path:
    return Path(arguments[TrainingArguments].output_dir) / FILE


def _flags(arguments: Arguments) -> dict[str, Any]:
    training = arguments[TrainingArguments]
    found = {name: getattr(training, name) for name in _OF_TRAINING}
    for kind, flags in arguments.items():
        if kind is not TrainingArguments:
            found |= {name: value for name, value in asdict(flags).items() if name not in _FREE}
    as_read: dict[str, Any] = json.loads(json.dumps(found))  # lists for tuples
    return as_read
