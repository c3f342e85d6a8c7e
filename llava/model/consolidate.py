"""Rewrites a checkpoint as today's: safetensors, one folder with all it needs, a model_type that says what it is.

python -m llava.model.consolidate --src DIR --dst NEW
"""

from __future__ import annotations

import argparse
from pathlib import Path

from llava.errors import CheckpointError
from llava.model.builder import known_classes, local_folder
from llava.model.checkpoint.checkpoint_tools import (
    GENERATION_FILE,
    TOKENIZER_FILES,
    check_complete,
    copy_files,
    copy_tower,
    refuse_used,
    run_and_tell,
    save_tensors,
    write_json,
)
from llava.model.checkpoint.hf_layout import is_hub_layout
from llava.model.checkpoint.weights_io import CheckpointWeights, find_weight_files, moved_when_whole, read_json
from llava.model.families import FAMILIES


def consolidate_ckpt(src_path: str, dst_path: str) -> None:
    """Write the checkpoint ``src_path`` anew to the folder ``dst_path``, in the dtype that it has.

    A LLaVA of before 1.5, whose config.json names the bare decoder's type, gets its own. Raises CheckpointError where
    the tensors are not those of the model that config.json describes.
    """
    source, target = local_folder(src_path), Path(dst_path)
    refuse_used(target)
    fields = read_json(source / "config.json")
    if is_hub_layout(fields):
        raise CheckpointError(
            f"{source} is in transformers' layout; make it LLaVA's: python -m llava.model.convert {source} {target}"
        )
    bare = {family.decoder_type: family.config_class.model_type for family in FAMILIES}
    if fields.get("mm_vision_tower"):
        fields["model_type"] = bare.get(fields.get("model_type", ""), fields.get("model_type"))
    if fields.get("model_type") not in known_classes():
        raise CheckpointError(
            f"{source / 'config.json'} has model_type {fields.get('model_type')!r}; expected one of "
            f"{', '.join(sorted(known_classes()))}"
        )
    fields["architectures"] = [known_classes()[fields["model_type"]][1].__name__]
    tensors = CheckpointWeights(find_weight_files(source)).read()
    check_complete(source, fields, tensors)
    with moved_when_whole(target) as part:
        write_json(part / "config.json", fields)
        copy_files(source, part, (GENERATION_FILE, *TOKENIZER_FILES))
        copy_tower(fields, source, part)
        save_tensors(tensors, part)


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--src", required=True, help="checkpoint to rewrite: folder or hub name")
    parser.add_argument("--dst", required=True, help="new folder for the result")
    args = parser.parse_args()
    run_and_tell(lambda: consolidate_ckpt(args.src, args.dst), args.dst)


if __name__ == "__main__":
    main()
