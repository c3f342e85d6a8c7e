"""Extracts the projector of a full checkpoint into a file such as stage 1 of training writes.

python scripts/extract_mm_projector.py --model-path DIR --output mm_projector.bin
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from llava.errors import CheckpointError
from llava.files.atomic_write import atomic_path
from llava.model.builder import in_projector_file
from llava.model.checkpoint.checkpoint_tools import run_and_report
from llava.model.checkpoint.folder import CheckpointFolder, local_folder


def extract(model_path: str, output: Path) -> None:
    """Write the projector's tensors, under their names in the full model. Raises CheckpointError without any."""
    weights = CheckpointFolder.open(local_folder(model_path), needs_config=False).weights()
    wanted = [name for name in weights if in_projector_file(name)]
    if not wanted:
        raise CheckpointError(f"there is no projector in {model_path}: no tensor is called mm_projector")
    with atomic_path(output) as temporary:
        torch.save({name: tensor.clone() for name, tensor in weights.read(wanted).items()}, temporary)


def main() -> None:
    """Run the program; exit with code 2 for a user error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model-path", required=True, help="full checkpoint, in either layout: folder or hub name")
    parser.add_argument("--output", required=True, type=Path, help="the file to write")
    args = parser.parse_args()
    run_and_report(lambda: extract(args.model_path, args.output), args.output)


if __name__ == "__main__":
    main()
