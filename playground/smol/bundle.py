"""Makes the folders that this project bundles of what PRESET=smol has trained: differences to the package's weights.

    python -m playground.smol.bundle --smol runs/smol --out ada/checkpoints

``smol`` is the LLaVA: adapters, projector and vision tower. ``smol-H`` and ``smol-L`` are its budgets: adapters on that
LLaVA, and a scheduler. All is bfloat16; each names what it was trained on. A frontier is measured on a bundled folder
(``ada.eval.frontier``): it is for its very weights.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from llava.errors import CheckpointError
from llava.files.atomic_write import atomic_folder
from llava.model.checkpoint.adapter_chain import HOW_TO_MAKE_BASE
from llava.model.checkpoint.lora import CONFIG_FILE, OTHERS_FILE, WEIGHT_FILES
from llava.model.checkpoint.neuron_order import ORDER_FILE
from llava.model.checkpoint.weights_io import read_json
from llava.program import run_program
from playground.smol.base import NAME

LLAVA = "smol"
TOWER = "vision_tower"
TOWER_FILES = ("config.json", "preprocessor_config.json", "model.safetensors")
MAX_BYTES = 15_000_000  # of all
PARTS = {LLAVA: "llava-lora", "smol-H": "H", "smol-L": "L"}  # by the name of what PRESET=smol has written


def bundle(smol: Path, out: Path) -> dict[str, int]:
    """Write every part that has been trained; return the bytes of each. Raises CheckpointError where none has."""
    written = {}
    for name, source in PARTS.items():
        folder = smol / source
        if (folder / WEIGHT_FILES[0]).is_file():
            _write(name, folder, smol / "tower", out / name)
            written[name] = sum(file.stat().st_size for file in (out / name).rglob("*") if file.is_file())
    if LLAVA not in written:
        raise CheckpointError(
            f"{smol / PARTS[LLAVA]} holds no adapter; train it: PRESET=smol bash scripts/v1_5/finetune.sh"
        )
    if sum(written.values()) > MAX_BYTES:
        raise CheckpointError(f"the bundle has {sum(written.values()):,} bytes; expected {MAX_BYTES:,} at most")
    return written


def _write(name: str, source: Path, tower: Path, target: Path) -> None:
    """Write one part; a card in the folder stays."""
    config = read_json(source / "config.json")
    own_tower = TOWER if name == LLAVA else f"{LLAVA}/{TOWER}"
    config |= {"mm_vision_tower": own_tower, "dtype": "bfloat16", "torch_dtype": "bfloat16", "use_cache": True}
    config["_name_or_path"] = NAME if name == LLAVA else LLAVA
    adapter = read_json(source / CONFIG_FILE)
    adapter["base_model_name_or_path"] = NAME if name == LLAVA else f"../{LLAVA}"
    if name == LLAVA:
        config[HOW_TO_MAKE_BASE] = "python -m playground.smol.base"
    with atomic_folder(target) as part:
        _write_json(part / "config.json", config)
        _write_json(part / CONFIG_FILE, adapter)
        weights = {key: _halved(value) for key, value in load_file(source / WEIGHT_FILES[0]).items()}
        save_file(weights, part / WEIGHT_FILES[0], metadata={"format": "pt"})
        others = torch.load(source / OTHERS_FILE, weights_only=True)
        torch.save({key: _halved(value) for key, value in others.items()}, part / OTHERS_FILE)
        if (source / ORDER_FILE).is_file():
            shutil.copy(source / ORDER_FILE, part)
        if name == LLAVA:
            (part / TOWER).mkdir()
            for file in TOWER_FILES:
                shutil.copy(tower / file, part / TOWER)


def _halved(value: torch.Tensor) -> torch.Tensor:
    return value.to(torch.bfloat16).contiguous() if value.is_floating_point() else value


def _write_json(path: Path, fields: dict[str, Any]) -> None:
    path.write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")


def run(args: argparse.Namespace) -> None:
    """Write the bundle; print the bytes of its parts."""
    for name, size in bundle(args.smol, args.out).items():
        print(f"{args.out / name}: {size:,} bytes")


def main() -> int:
    """Run the program with the command line's flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smol", type=Path, default=Path("runs/smol"), help="folder that PRESET=smol has written")
    parser.add_argument("--out", type=Path, required=True, help="folder for the bundle's folders")
    args = parser.parse_args()
    return run_program(lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
