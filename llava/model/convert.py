"""Converts a checkpoint between LLaVA's layout and that of transformers' own classes, in the direction it needs.

    python -m llava.model.convert SOURCE TARGET

LLaVA's layout becomes ``LlavaForConditionalGeneration``'s, or for a LLaVA-1.6 ``LlavaNextForConditionalGeneration``'s,
or for a LLaVA-OneVision ``LlavaOnevisionForConditionalGeneration``'s; each of these becomes LLaVA's. No tensor changes:
there and back again, all are bit-equal.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from llava.errors import CheckpointError
from llava.files.atomic_write import atomic_folder
from llava.model.checkpoint import hf_layout, hf_vision
from llava.model.checkpoint.checkpoint_tools import (
    GENERATION_FILE,
    TABLES,
    TOKENIZER_FILES,
    check_complete,
    copy_files,
    refuse_used,
    run_and_report,
    save_tensors,
    write_json,
)
from llava.model.checkpoint.folder import CheckpointFolder, open_checkpoint
from llava.model.checkpoint.hf_names import TOWER, hub_name
from llava.model.checkpoint.hf_processor import save_processor, tokenizer_with_tags
from llava.model.checkpoint.quiet import quiet_loading
from llava.model.checkpoint.read_model import make_config, read_fields, with_family
from llava.model.checkpoint.weights_io import Tensors, read_json, report_misfits, settings_of
from llava.model.families import FAMILIES, Family, llava_classes
from llava.model.llama_tokenizer import load_tokenizer
from llava.model.multimodal_encoder.builder import build_vision_tower
from llava.model.multimodal_encoder.tower_files import IN_CHECKPOINT, SAVED_FOLDER, read_tower
from llava.plugins import hooks

# In a converted folder: the files of LLaVA's layout that have no counterpart in the other.
KEPT_FOLDER = "llava"


@quiet_loading()
def convert(source: str, target: Path) -> None:
    """Write ``source`` (a folder or hub name) to the new folder ``target`` in the other layout.

    Raises CheckpointError where the other layout cannot hold it, and where ``target`` holds files.
    """
    folder = open_checkpoint(source)
    refuse_used(target)
    if folder.hub_layout:
        to_llava(folder, target)
    else:
        to_hub(folder, target)


def to_llava(folder: CheckpointFolder, target: Path) -> None:
    """Write a checkpoint in transformers' layout in LLaVA's; files that an earlier conversion kept are put back."""
    kept = folder.path / KEPT_FOLDER
    fields, tensors = read_fields(folder), folder.weights().read()
    fields["architectures"] = [llava_classes()[fields["model_type"]][1].__name__]
    if kept.is_dir():
        fields = _kept_fields(folder, fields["vocab_size"])
        tensors.update({name: tensors[name][: fields["vocab_size"]].clone() for name in TABLES if name in tensors})
    check_complete(folder.path, with_family(fields), tensors)
    config = hf_layout.hub_config(folder)
    _check_tower(folder, config.vision_config, tensors)
    layers = config.vision_feature_layer, fields["mm_vision_select_layer"]
    files = kept if kept.is_dir() else folder.path
    load_tokenizer(files)  # an error here, where there is none
    with atomic_folder(target) as part:
        write_json(part / "config.json", fields)
        copy_files(files, part, (*TOKENIZER_FILES, GENERATION_FILE))
        _without_image_token(part / "tokenizer_config.json")
        hf_vision.llava_vision_config(config.vision_config, *layers).save_pretrained(part / SAVED_FOLDER)
        hf_layout.image_processor(folder).save_pretrained(part / SAVED_FOLDER)
        save_tensors(tensors, part)


def to_hub(folder: CheckpointFolder, target: Path) -> None:
    """Write a checkpoint in LLaVA's layout in transformers', which has a token for the image tag."""
    fields = read_fields(folder)
    family = _family(folder)
    tensors = folder.weights().read()
    check_complete(folder.path, fields, tensors)
    config = make_config(family.config_class, folder, fields)
    if getattr(config, "s2", False):
        raise CheckpointError(
            f"{folder.config_file} has s2: its vision tower reads images at several scales, which "
            "transformers' classes do not"
        )
    tower = build_vision_tower(config, delay_load=True)
    if not any(name.startswith(IN_CHECKPOINT) for name in tensors):
        own = read_tower(tower.location, tower.model_class, dtype="auto").state_dict()
        tensors.update({TOWER + name: tensor for name, tensor in own.items()})
    vision = hf_vision.hub_vision(tower, tensors)
    _check_tower(folder, vision[0], tensors)
    with settings_of(folder.config_file):
        hub_class = hf_layout.hub_class(fields)
    tokenizer, tags = tokenizer_with_tags(folder.path, hub_class)
    with settings_of(folder.config_file):
        hub_config = hf_layout.make_hub_config(config.to_dict(), family.decoder_type, vision, tags)
    for name in TABLES:
        if name in tensors:
            tensors[name] = _with_rows(tensors[name], 1 + max(tags.values()))
    with atomic_folder(target) as part:
        hub_config.save_pretrained(part)
        save_processor(tower, tokenizer, hub_config, fields.get("image_aspect_ratio") == "pad", part)
        copy_files(folder.path, part, (GENERATION_FILE,))
        copy_files(folder.path, part / KEPT_FOLDER, ("config.json", GENERATION_FILE, *TOKENIZER_FILES))
        save_tensors({hub_name(name): tensor for name, tensor in tensors.items()}, part)


def _kept_fields(folder: CheckpointFolder, rows: int) -> dict[str, Any]:
    """Read the config.json that an earlier conversion kept.

    Raises CheckpointError where the vocabulary, of ``rows`` tokens now, has grown since: the old config would cut it.
    """
    kept = folder.path / KEPT_FOLDER / "config.json"
    fields = read_json(kept)
    with settings_of(kept):
        before = max(fields["vocab_size"], 1 + max(hf_layout.tags_of(hf_layout.hub_config(folder))))
    if rows != before:
        raise CheckpointError(
            f"{folder.path} has a vocabulary of {rows} tokens; it had {before} when {kept} was kept. Remove the folder "
            f"{KEPT_FOLDER} to convert the checkpoint as it is now"
        )
    return fields


def _check_tower(folder: CheckpointFolder, vision: Any, tensors: Tensors) -> None:
    """Raise CheckpointError unless the vision tower's tensors are those that its config describes."""
    with settings_of(folder.config_file), torch.device("meta"):
        expected = hf_vision.expected_tensors(vision)
    found = {name: tensor for name, tensor in tensors.items() if name.startswith(IN_CHECKPOINT)}
    report_misfits(
        str(folder.path),
        missing=expected.keys() - found.keys(),
        unexpected=found.keys() - expected.keys(),
        wrong_shapes=[
            (name, found[name].shape, expected[name].shape)
            for name in sorted(expected.keys() & found.keys())
            if found[name].shape != expected[name].shape
        ],
    )


def _family(folder: CheckpointFolder) -> Family:
    """Return the family of a checkpoint in LLaVA's layout. Raises CheckpointError for any other kind."""
    kind, classes = read_fields(folder).get("model_type"), llava_classes()
    for family in FAMILIES:
        if kind in classes and classes[kind][0] is family.config_class:
            if not family.in_hub_layout:
                raise CheckpointError(
                    f"{folder.config_file} has model_type {kind!r}, which is not written in transformers' layout"
                )
            return family
    reason = hooks().check_convertible(fields=folder.fields)
    hint = f"; {reason}" if reason else ""
    raise CheckpointError(
        f"{folder.config_file} has model_type {kind!r}; expected one of {', '.join(sorted(classes))}{hint}"
    )


def _with_rows(table: torch.Tensor, rows: int) -> torch.Tensor:
    """Return the table with ``rows`` rows or more. New ones are the mean of the old: greedy answers never use them."""
    missing = rows - len(table)
    if missing <= 0:
        return table
    mean = table.float().mean(dim=0, keepdim=True).to(table.dtype)
    return torch.cat([table, mean.expand(missing, -1)])


def _without_image_token(path: Path) -> None:
    """Remove the processor's name from a tokenizer's config: LLaVA's prompts are tokenized without a processor."""
    if path.is_file():
        settings = read_json(path)
        if settings.pop("processor_class", None) is not None:
            write_json(path, settings)


def main() -> None:
    """Run the program; exit with code 2 for a user error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="checkpoint folder or hub name, in either layout")
    parser.add_argument("target", type=Path, help="new folder for the checkpoint in the other layout")
    args = parser.parse_args()
    run_and_report(lambda: convert(args.source, args.target), args.target)


if __name__ == "__main__":
    main()
