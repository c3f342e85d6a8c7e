"""Shares what the programs that rewrite checkpoints do: check the target, copy files, save tensors, show errors."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict
from safetensors import SafetensorError

from llava.errors import CheckpointError
from llava.files.atomic_write import UNFINISHED, atomic_write
from llava.model.checkpoint.weights_io import Tensors, report_misfits, settings_of
from llava.model.families import known_classes
from llava.model.multimodal_encoder.tower_files import IN_CHECKPOINT, SAVED_FOLDER
from llava.program import run_program

TOKENIZER_FILES = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt")
GENERATION_FILE = "generation_config.json"
TABLES = ("model.embed_tokens.weight", "lm_head.weight")  # a row for every token


def refuse_used(target: Path) -> None:
    """Raise CheckpointError where ``target`` holds files already, others than those of a run that was stopped."""
    if target.exists() and (not target.is_dir() or any(path.name != UNFINISHED for path in target.iterdir())):
        raise CheckpointError(f"{target} exists; name a folder that does not, or is empty")


def copy_files(source: Path, target: Path, patterns: Iterable[str]) -> None:
    """Copy the files of ``source`` that fit one of the patterns."""
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted({path for pattern in patterns for path in source.glob(pattern)}):
        if path.is_file():
            shutil.copyfile(path, target / path.name)


def copy_tower(fields: dict[str, Any], source: Path, target: Path) -> None:
    """Copy the vision tower that a checkpoint's folder holds, or describes, next to its weights."""
    for name in {SAVED_FOLDER, fields.get("mm_vision_tower") or SAVED_FOLDER}:
        if not Path(name).is_absolute() and ".." not in Path(name).parts and (source / name).is_dir():
            shutil.copytree(source / name, target / name, dirs_exist_ok=True)


def check_complete(folder: Path, fields: dict[str, Any], tensors: Tensors) -> None:
    """Raise CheckpointError unless ``tensors`` are those of the model that ``fields`` describe, tower excepted."""
    config_class, model_class = known_classes()[fields["model_type"]]
    if fields.get("mm_vision_tower"):  # the tower itself is not looked for, in no folder and not on the hub
        fields = {**fields, "mm_vision_tower": SAVED_FOLDER}
    with settings_of(folder / "config.json"), torch.device("meta"):
        model = model_class(config_class.from_dict(fields))
        expected = model.state_dict()
    if model.config.tie_word_embeddings and "lm_head.weight" not in tensors:
        expected.pop("lm_head.weight", None)
    found = {name: tensor for name, tensor in tensors.items() if not name.startswith(IN_CHECKPOINT)}
    report_misfits(
        str(folder),
        missing=[name for name in expected if name not in found],
        unexpected=[name for name in found if name not in expected],
        wrong_shapes=[
            (name, tensor.shape, expected[name].shape)
            for name, tensor in found.items()
            if name in expected and tensor.shape != expected[name].shape
        ],
    )


def write_json(path: Path, fields: dict[str, Any]) -> None:
    """Write a JSON object, indented, atomically."""
    atomic_write(path, json.dumps(fields, indent=2) + "\n")


def save_tensors(tensors: Tensors, folder: Path) -> None:
    """Write ``model.safetensors``, or shards of it and their index."""
    seen: set[int] = set()
    unshared = {}  # of tensors that share their memory, as a pickle's may, the library would write one only
    for name, tensor in tensors.items():
        address = tensor.untyped_storage().data_ptr()
        unshared[name] = tensor.clone() if address in seen else tensor
        seen.add(address)
    save_torch_state_dict(unshared, folder, metadata={"format": "pt"})


def run_and_report(work: Callable[[], None], result: str | Path) -> None:
    """Run a program whose work writes ``result``, and print so at its end; exit with code 2 for a user error."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    def reported() -> None:
        try:
            work()
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                f"could not write {result}: {error}; name a path that can be written, with enough free space"
            ) from error
        print(f"wrote {result}")

    if code := run_program(reported):
        raise SystemExit(code)
