"""Subtracts a base model from a checkpoint, which gives a delta.

python -m llava.model.make_delta --base-model-path DIR --target-model-path DIR --delta-path NEW
"""

from __future__ import annotations

import argparse
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

from llava.errors import CheckpointError
from llava.model.checkpoint.checkpoint_tools import run_and_report
from llava.model.checkpoint.weight_delta import write_combined
from llava.model.checkpoint.weights_io import first_line


def make_delta(base_model_path: str, target_model_path: str, delta_path: str, hub_repo_id: str | None = None) -> None:
    """Write target - base to the new folder ``delta_path``, and upload it where a repository is named.

    Raises CheckpointError where the two do not fit, or the hub refuses.
    """
    write_combined(target_model_path, base_model_path, Path(delta_path), sign=-1)
    if hub_repo_id:
        _upload(delta_path, hub_repo_id)


def _upload(folder: str, name: str) -> None:
    hub = HfApi()
    try:
        hub.create_repo(name, exist_ok=True)
        hub.upload_folder(repo_id=name, folder_path=folder)
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{folder} is written, but was not put on the hub as {name}: {first_line(error)}"
        ) from error


def main() -> None:
    """Run the program; exit with code 2 for a user error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-model-path", required=True, help="the base model: folder or hub name")
    parser.add_argument("--target-model-path", required=True, help="the checkpoint made from it: folder or hub name")
    parser.add_argument("--delta-path", required=True, help="new folder for the delta")
    parser.add_argument("--hub-repo-id", help="repository on the Hugging Face hub to upload the delta to")
    args = parser.parse_args()
    run_and_report(
        lambda: make_delta(args.base_model_path, args.target_model_path, args.delta_path, args.hub_repo_id),
        args.delta_path,
    )


if __name__ == "__main__":
    main()
