"""Takes the projector out of a whole checkpoint, into a file as stage 1 leaves one.

python scripts/extract_mm_projector.py --model-path DIR --output mm_projector.bin
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from llava.errors import CheckpointError
from llava.model.builder import in_projector_file, local_folder
from llava.model.checkpoint.checkpoint_tools import run_and_tell
from llava.model.checkpoint.hf_layout import open_weights


def extract(model_path: str, output: Path) -> None:
    """Write the projector's tensors, under their names in the whole model. Raises CheckpointError without any."""
    weights = open_weights(local_folder(model_path))
    wanted = [name for name in weights if in_projector_file(name)]
    if not wanted:
        raise CheckpointError(f"there is no projector in {model_path}: no tensor is called mm_projector")
    output.parent.mkdir(parents=True, exist_ok=True)
    part = output.with_name(f"{output.name}.part")
    torch.save({name: tensor.clone() for name, tensor in weights.read(wanted).items()}, part)
    part.replace(output)


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model-path", required=True, help="whole checkpoint, in either layout: folder or hub name")
    parser.add_argument("--output", required=True, type=Path, help="the file to write")
    args = parser.parse_args()
    run_and_tell(lambda: extract(args.model_path, args.output), args.output)


if __name__ == "__main__":
    main()
