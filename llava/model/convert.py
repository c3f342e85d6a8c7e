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
    CLIPVisionModel,
    LlavaImageProcessorPil,
    LlavaNextImageProcessorPil,
    LlavaNextProcessor,
    LlavaProcessor,
)

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.errors import CheckpointError
from llava.mm_utils import grid_resolutions
from llava.model.builder import local_folder, read_config, read_fields
from llava.model.checkpoint import hf_layout
from llava.model.checkpoint.checkpoint_tools import (
    GENERATION_FILE,
    TABLES,
    TOKENIZER_FILES,
    check_complete,
    copy_files,
    refuse_used,
    run_and_tell,
    save_tensors,
    write_json,
)
from llava.model.checkpoint.weights_io import Tensors, moved_when_whole, read_json, report_misfits, settings_of
from llava.model.families import FAMILIES, Family, llava_classes
from llava.model.llama_tokenizer import load_tokenizer
from llava.model.multimodal_encoder.clip_encoder import IN_CHECKPOINT, SAVED_FOLDER, CLIPVisionTower, read_tower

# In a converted folder: the files of LLaVA's layout that the other has no place for.
KEPT_FOLDER = "llava"


def convert(source: str, target: Path) -> None:
    """Write ``source`` (a folder or hub name) to the new folder ``target`` in the other layout.

    Raises CheckpointError where the other layout cannot hold it, and where ``target`` holds files.
    """
    folder = local_folder(source)
    refuse_used(target)
    if hf_layout.is_hub_layout(read_json(folder / "config.json")):
        to_llava(folder, target)
    else:
        to_hub(folder, target)


def to_llava(folder: Path, target: Path) -> None:
    """transformers' layout -> LLaVA's. What an earlier conversion kept is put back as it was."""
    kept = folder / KEPT_FOLDER
    fields, tensors = read_fields(folder), hf_layout.open_weights(folder).read()
    fields["architectures"] = [llava_classes()[fields["model_type"]][1].__name__]
    if kept.is_dir():
        fields = _kept_fields(folder, fields["vocab_size"])
        tensors.update({name: tensors[name][: fields["vocab_size"]].clone() for name in TABLES if name in tensors})
    check_complete(folder, fields, tensors)
    vision = hf_layout.hub_config(folder).vision_config
    _check_tower(folder, vision, tensors)
    files = kept if kept.is_dir() else folder
    load_tokenizer(files)  # an error here, where there is none
    with moved_when_whole(target) as part:
        write_json(part / "config.json", fields)
        copy_files(files, part, (*TOKENIZER_FILES, GENERATION_FILE))
        _without_image_token(part / "tokenizer_config.json")
        vision.save_pretrained(part / SAVED_FOLDER)
        hf_layout.image_processor(folder).save_pretrained(part / SAVED_FOLDER)
        save_tensors(tensors, part)


def to_hub(folder: Path, target: Path) -> None:
    """LLaVA's layout -> transformers'. The image tag becomes a token of its own, as transformers wants it."""
    fields = read_json(folder / "config.json")
    family = _family(fields, folder)
    tensors = hf_layout.open_weights(folder).read()
    check_complete(folder, fields, tensors)
    config = read_config(family.config_class, folder)
    config._name_or_path = str(folder)  # where a tower's relative name is looked for
    tower = CLIPVisionTower(config.mm_vision_tower, args=config, delay_load=True)
    _ = tower.layers_run  # an error here, where there is no such layer
    if any(name.startswith(IN_CHECKPOINT) for name in tensors):
        _check_tower(folder, tower.config, tensors)
    else:
        vision = read_tower(tower.location, dtype="auto").state_dict()
        tensors.update({hf_layout.TOWER + name: tensor for name, tensor in vision.items()})
    load_tokenizer(folder)  # an error here, where there is none
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([AddedToken(DEFAULT_IMAGE_TOKEN, special=True, normalized=False)], special_tokens=True)
    image_token = tokenizer.convert_tokens_to_ids(DEFAULT_IMAGE_TOKEN)
    with settings_of(folder / "config.json"):
        hub_config = hf_layout.make_hub_config(config.to_dict(), family.decoder_type, tower.config, image_token)
    for name in TABLES:
        if name in tensors:
            tensors[name] = _with_rows(tensors[name], image_token + 1)
    with moved_when_whole(target) as part:
        hub_config.save_pretrained(part)
        _processor(fields, tower, tokenizer, hub_config).save_pretrained(part)
        copy_files(folder, part, (GENERATION_FILE,))
        copy_files(folder, part / KEPT_FOLDER, ("config.json", GENERATION_FILE, *TOKENIZER_FILES))
        save_tensors({hf_layout.hub_name(name): tensor for name, tensor in tensors.items()}, part)


def _kept_fields(folder: Path, rows: int) -> dict[str, Any]:
    """The config.json that a conversion kept; a CheckpointError where the vocabulary, of ``rows`` tokens now, has
    grown since: putting back the old one would cut it."""
    kept = folder / KEPT_FOLDER / "config.json"
    fields = read_json(kept)
    with settings_of(kept):
        before = max(fields["vocab_size"], hf_layout.hub_config(folder).image_token_index + 1)
    if rows != before:
        raise CheckpointError(
            f"{folder} has a vocabulary of {rows} tokens; it had {before} when {kept} was kept. Remove the folder "
            f"{KEPT_FOLDER} to convert the checkpoint as it is now"
        )
    return fields


def _check_tower(folder: Path, vision: Any, tensors: Tensors) -> None:
    """Raise CheckpointError unless the vision tower's tensors are those that its config describes."""
    with settings_of(folder / "config.json"), torch.device("meta"):
        expected = {hf_layout.TOWER + name: tensor for name, tensor in CLIPVisionModel(vision).state_dict().items()}
    found = {name: tensor for name, tensor in tensors.items() if name.startswith(IN_CHECKPOINT)}
    report_misfits(
        str(folder),
        missing=expected.keys() - found.keys(),
        unexpected=found.keys() - expected.keys(),
        wrong_shapes=[
            (name, found[name].shape, expected[name].shape)
            for name in sorted(expected.keys() & found.keys())
            if found[name].shape != expected[name].shape
        ],
    )


def _family(fields: dict[str, Any], folder: Path) -> Family:
    """The family of a checkpoint in LLaVA's layout; a CheckpointError for any other kind."""
    kind, classes = fields.get("model_type"), llava_classes()
    for family in FAMILIES:
        if kind in classes and classes[kind][0] is family.config_class:
            return family
    hint = ""
    if "scheduler_type" in fields:
        hint = "; transformers' classes have no scheduler, so a model with a latency budget cannot be converted"
    raise CheckpointError(
        f"{folder / 'config.json'} has model_type {kind!r}; expected one of {', '.join(sorted(classes))}{hint}"
    )


def _with_rows(table: torch.Tensor, rows: int) -> torch.Tensor:
    """The table with at least ``rows`` rows. New ones are the mean of the old: no greedy answer ever names them."""
    missing = rows - len(table)
    if missing <= 0:
        return table
    mean = table.float().mean(dim=0, keepdim=True).to(table.dtype)
    return torch.cat([table, mean.expand(missing, -1)])


def _processor(fields: dict[str, Any], tower: CLIPVisionTower, tokenizer: Any, hub_config: Any) -> Any:
    """transformers' processor: prompt and pictures prepared as this checkpoint was trained."""
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
    """LLaVA's prompts are cut at the image tag before they are tokenized: nothing may ask for a processor there."""
    if path.is_file():
        settings = read_json(path)
        if settings.pop("processor_class", None) is not None:
            write_json(path, settings)


def main() -> None:
    """The program; exit code 2 for an error that the user can mend."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="checkpoint folder or hub name, in either layout")
    parser.add_argument("target", type=Path, help="new folder for the checkpoint in the other layout")
    args = parser.parse_args()
    run_and_tell(lambda: convert(args.source, args.target), args.target)


if __name__ == "__main__":
    main()
