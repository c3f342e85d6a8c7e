"""Merges a LoRA adapter into its base model: the result is a full checkpoint, whose layers a plan can cut.

python scripts/merge_lora_weights.py --model-path ADAPTER --model-base BASE --save-model-path NEW
"""

from __future__ import annotations

import argparse
from pathlib import Path

from llava.errors import CheckpointError
from llava.files.atomic_write import atomic_folder
from llava.mm_utils import get_model_name_from_path
from llava.model.builder import load_pretrained_model
from llava.model.checkpoint.checkpoint_tools import refuse_used, run_and_report
from llava.model.checkpoint.folder import local_folder, open_checkpoint
from llava.model.checkpoint.lora import is_adapter
from llava.model.checkpoint.read_model import read_fields


def merge_lora(model_path: str, model_base: str, save_model_path: Path) -> None:
    """Write the merged model, in its base's dtype, to a new folder. Raises CheckpointError without an adapter."""
    refuse_used(save_model_path)
    if not is_adapter(local_folder(model_path)):
        raise CheckpointError(f"{model_path} holds no LoRA adapter (adapter_config.json); there is nothing to merge")
    fields = read_fields(open_checkpoint(model_base))
    dtype = fields.get("dtype") or fields.get("torch_dtype") or "float32"
    name = get_model_name_from_path(model_path)
    tokenizer, model, _, _ = load_pretrained_model(model_path, model_base, name, device="cpu", dtype=dtype)
    with atomic_folder(save_model_path) as part:
        model.save_pretrained(part)
        tokenizer.save_pretrained(part)


def main() -> None:
    """Run the program; exit with code 2 for a user error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model-path", required=True, help="the adapter's folder or hub name")
    parser.add_argument("--model-base", required=True, help="the model that it was trained on")
    parser.add_argument("--save-model-path", required=True, type=Path, help="new folder for the result")
    args = parser.parse_args()
    run_and_report(lambda: merge_lora(args.model_path, args.model_base, args.save_model_path), args.save_model_path)


if __name__ == "__main__":
    main()
