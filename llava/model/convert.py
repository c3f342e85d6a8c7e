"""Converts a checkpoint between LLaVA's layout and that of transformers' own classes, in the direction it needs.

    python -m llava.model.convert SOURCE TARGET

LLaVA's layout becomes ``LlavaForConditionalGeneration``'s, or ``LlavaNextForConditionalGeneration``'s for a LLaVA-1.6;
either of these becomes LLaVA's. No tensor changes: there and back again, all are bit-equal.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AddedToken,
    AutoTokenizer,
    CLIPVisionConfig,
    CLIPVisionModel,
    LlavaImageProcessorPil,
    LlavaNextImageProcessorPil,
    LlavaNextProcessor,
    LlavaProcessor,
    PretrainedConfig,
)

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.errors import CheckpointError
from llava.files.atomic_write import atomic_folder
from llava.model.checkpoint import hf_layout
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
from llava.model.checkpoint.read_model import make_config, read_fields
from llava.model.checkpoint.weights_io import Tensors, read_json, report_misfits, settings_of
from llava.model.families import FAMILIES, Family, llava_classes
from llava.model.llama_tokenizer import load_tokenizer
from llava.model.multimodal.anyres_grid import grid_resolutions
from llava.model.multimodal_encoder.clip_encoder import IN_CHECKPOINT, SAVED_FOLDER, CLIPVisionTower, read_tower
from llava.plugins import hooks
from llava.protocols import Tokenizer

# In a converted folder: the files of LLaVA's layout that have no counterpart in the other.
KEPT_FOLDER = "llava"


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
    check_complete(folder.path, fields, tensors)
    vision = hf_layout.hub_config(folder).vision_config
    _check_tower(folder, vision, tensors)
    files = kept if kept.is_dir() else folder.path
    load_tokenizer(files)  # an error here, where there is none
    with atomic_folder(target) as part:
        write_json(part / "config.json", fields)
        copy_files(files, part, (*TOKENIZER_FILES, GENERATION_FILE))
        _without_image_token(part / "tokenizer_config.json")
        vision.save_pretrained(part / SAVED_FOLDER)
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
    tower = CLIPVisionTower(config.mm_vision_tower, args=config, delay_load=True)
    _ = tower.layers_run  # an error here, where there is no such layer
    if any(name.startswith(IN_CHECKPOINT) for name in tensors):
        _check_tower(folder, tower.config, tensors)
    else:
        vision = read_tower(tower.location, dtype="auto").state_dict()
        tensors.update({TOWER + name: tensor for name, tensor in vision.items()})
    tokenizer, image_token = _tokenizer_with_image_token(folder.path)
    with settings_of(folder.config_file):
        hub_config = hf_layout.make_hub_config(config.to_dict(), family.decoder_type, tower.config, image_token)
    for name in TABLES:
        if name in tensors:
            tensors[name] = _with_rows(tensors[name], image_token + 1)
    with atomic_folder(target) as part:
        hub_config.save_pretrained(part)
        _processor(fields, tower, tokenizer, hub_config).save_pretrained(part)
        copy_files(folder.path, part, (GENERATION_FILE,))
        copy_files(folder.path, part / KEPT_FOLDER, ("config.json", GENERATION_FILE, *TOKENIZER_FILES))
        save_tensors({hub_name(name): tensor for name, tensor in tensors.items()}, part)


def _tokenizer_with_image_token(folder: Path) -> tuple[Any, int]:
    """Read transformers' tokenizer, and add the token ``<image>``; its id is the second result."""
    load_tokenizer(folder)  # an error here, where there is none
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([AddedToken(DEFAULT_IMAGE_TOKEN, special=True, normalized=False)], special_tokens=True)
    return tokenizer, tokenizer.convert_tokens_to_ids(DEFAULT_IMAGE_TOKEN)


def _kept_fields(folder: CheckpointFolder, rows: int) -> dict[str, Any]:
    """Read the config.json that an earlier conversion kept.

    Raises CheckpointError where the vocabulary, of ``rows`` tokens now, has grown since: the old config would cut it.
    """
    kept = folder.path / KEPT_FOLDER / "config.json"
    fields = read_json(kept)
    with settings_of(kept):
        before = max(fields["vocab_size"], hf_layout.hub_config(folder).image_token_index + 1)
    if rows != before:
        raise CheckpointError(
            f"{folder.path} has a vocabulary of {rows} tokens; it had {before} when {kept} was kept. Remove the folder "
            f"{KEPT_FOLDER} to convert the checkpoint as it is now"
        )
    return fields


def _check_tower(folder: CheckpointFolder, vision: CLIPVisionConfig, tensors: Tensors) -> None:
    """Raise CheckpointError unless the vision tower's tensors are those that its config describes."""
    with settings_of(folder.config_file), torch.device("meta"):
        expected = {TOWER + name: tensor for name, tensor in CLIPVisionModel(vision).state_dict().items()}
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
    kind, classes = folder.fields.get("model_type"), llava_classes()
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


def _processor(
    fields: dict[str, Any], tower: CLIPVisionTower, tokenizer: Tokenizer, hub_config: PretrainedConfig
) -> Any:
    """Make transformers' processor, which prepares prompt and images as this checkpoint was trained."""
    settings = {
        "tokenizer": tokenizer,
        "patch_size": tower.config.patch_size,
        "vision_feature_select_strategy": hub_config.vision_feature_select_strategy,
        "num_additional_image_tokens": 1,  # the class token
    }
    pixels = {name: value for name, value in tower.image_processor.to_dict().items() if name.startswith(_PIXEL_FIELDS)}
    if fields.get("image_aspect_ratio") == "anyres":
        points = [[height, width] for width, height in grid_resolutions(fields["image_grid_pinpoints"])]
        images = LlavaNextImageProcessorPil(**pixels, image_grid_pinpoints=points)
        return LlavaNextProcessor(image_processor=images, **settings)
    images = LlavaImageProcessorPil(**pixels, do_pad=fields.get("image_aspect_ratio") == "pad")
    return LlavaProcessor(image_processor=images, **settings)


_PIXEL_FIELDS = ("do_", "size", "crop_size", "resample", "rescale_factor", "image_mean", "image_std")


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
