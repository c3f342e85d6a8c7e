"""Adds a delta to its base model, which gives the checkpoint again.

python -m llava.model.apply_delta --base-model-path DIR --target-model-path NEW --delta-path DIR
"""

from __future__ import annotations

import argparse
from pathlib import Path

from llava.model.checkpoint.checkpoint_tools import run_and_report
from llava.model.checkpoint.weight_delta import write_combined


def apply_delta(base_model_path: str, target_model_path: str, delta_path: str) -> None:
    """Write base + delta to the new folder ``target_model_path``. Raises CheckpointError where they do not fit."""
    write_combined(delta_path, base_model_path, Path(target_model_path), sign=1)


def main() -> None:
    """Run the program; exit with code 2 for a user error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-model-path", required=True, help="the base model: folder or hub name")
    parser.add_argument("--target-model-path", required=True, help="new folder for the result")
    parser.add_argument("--delta-path", required=True, help="the delta: folder or hub name")
    args = parser.parse_args()
    run_and_report(
        lambda: apply_delta(args.base_model_path, args.target_model_path, args.delta_path), args.target_model_path
    )


if __name__ == "__main__":
    main()
