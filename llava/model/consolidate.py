"""Rewrites a checkpoint in today's form: safetensors, all in one folder, a model_type that names the model.

python -m llava.model.consolidate --src DIR --dst NEW
"""

from __future__ import annotations

import argparse
from pathlib import Path

from llava.errors import CheckpointError
from llava.files.atomic_write import atomic_folder
from llava.model.checkpoint.checkpoint_tools import (
    GENERATION_FILE,
    TOKENIZER_FILES,
    check_complete,
    copy_files,
    copy_tower,
    refuse_used,
    run_and_report,
    save_tensors,
    write_json,
)
from llava.model.checkpoint.folder import open_checkpoint
from llava.model.checkpoint.read_model import read_fields
from llava.model.families import FAMILIES, known_classes


def consolidate_ckpt(src_path: str, dst_path: str) -> None:
    """Write the checkpoint ``src_path`` again, to the new folder ``dst_path``, in the dtype that it has.

    A LLaVA of before 1.5, whose config.json names the bare decoder's type, gets its own. Raises CheckpointError where
    the tensors are not those of the model that config.json describes.
    """
    target = Path(dst_path)
    refuse_used(target)
    source = open_checkpoint(src_path)
    if source.hub_layout:
        raise CheckpointError(
            f"{source.path} is in transformers' layout; make it LLaVA's: "
            f"python -m llava.model.convert {source.path} {target}"
        )
    fields = read_fields(source)
    bare = {family.decoder_type: family.config_class.model_type for family in FAMILIES}
    if fields.get("mm_vision_tower"):
        fields["model_type"] = bare.get(fields.get("model_type", ""), fields.get("model_type"))
    classes = known_classes()
    if fields.get("model_type") not in classes:
        raise CheckpointError(
            f"{source.config_file} has model_type {fields.get('model_type')!r}; expected one of "
            f"{', '.join(sorted(classes))}"
        )
    fields["architectures"] = [classes[fields["model_type"]][1].__name__]
    tensors = source.weights().read()
    check_complete(source.path, fields, tensors)
    with atomic_folder(target) as part:
        write_json(part / "config.json", fields)
        copy_files(source.path, part, (GENERATION_FILE, *TOKENIZER_FILES))
        copy_tower(fields, source.path, part)
        save_tensors(tensors, part)


def main() -> None:
    """Run the program; exit with code 2 for a user error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--src", required=True, help="checkpoint to rewrite: folder or hub name")
    parser.add_argument("--dst", required=True, help="new folder for the result")
    args = parser.parse_args()
    run_and_report(lambda: consolidate_ckpt(args.src, args.dst), args.dst)


if __name__ == "__main__":
    main()
