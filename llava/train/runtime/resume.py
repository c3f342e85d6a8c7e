"""Where a stopped run goes on: its last checkpoint, and what DeepSpeed wants to know of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from llava.errors import CheckpointError

LATEST, LATEST_UNIVERSAL = "latest", "latest_universal"  # DeepSpeed's files that name the folder of its own state


def complete_checkpoints(output_dir: str) -> list[Path]:
    """The output folder's ``checkpoint-*`` that were written to the end, oldest first."""
    found = [p for p in Path(output_dir).glob("checkpoint-*") if (p / "trainer_state.json").is_file()]
    return sorted(found, key=lambda p: int(p.name.rpartition("-")[2]))


def last_checkpoint(args: Any) -> str | None:
    """The checkpoint to go on from, where there is one. args: the parsed TrainingArguments.

    DeepSpeed keeps a part of its state for each process. Where their number has changed, its universal form is read,
    which any number can; it is made by a command. Raises CheckpointError where it is not made yet, and where the
    checkpoint was written with DeepSpeed and the run is without it, or the other way round.
    """
    checkpoints = complete_checkpoints(args.output_dir)
    if not checkpoints:
        return None
    folder = checkpoints[-1]
    writers = _writers(folder)
    if (args.deepspeed is None) != (writers == 0):
        has, asked = ("with", "without") if writers else ("without", "with")
        raise CheckpointError(
            f"{folder} was written {has} DeepSpeed, and this run is {asked} it; go on as it was started, or take its "
            "weights as --model_name_or_path of a new --output_dir"
        )
    if writers not in (0, args.world_size):
        _read_universal_form(folder, writers, args)
    return str(folder)


def restore_param_group_settings(optimizer: Any, decays: Sequence[float], rates: Sequence[float]) -> None:
    """Give every parameter group of an optimizer that DeepSpeed has loaded its own settings and count of steps again.

    From the universal form of a ZeRO-3 checkpoint all come back with the first group's settings, and with one count,
    the same tensor, that each group then raises.
    """
    for group, decay, rate in zip(optimizer.param_groups, decays, rates, strict=True):
        group["weight_decay"], group["lr"] = decay, rate
    for state in optimizer.state.values():
        if isinstance(state.get("step"), torch.Tensor):
            state["step"] = state["step"].clone()


def _writers(folder: Path) -> int:
    """How many processes DeepSpeed's part of a checkpoint has state of; 0 without such a part."""
    if not (folder / LATEST).is_file():
        return 0
    tag = (folder / LATEST).read_text(encoding="utf-8").strip()
    return len(list((folder / tag).glob("*_optim_states.pt")))


def _read_universal_form(folder: Path, writers: int, args: Any) -> None:
    if not (folder / LATEST_UNIVERSAL).is_file():
        state = folder / (folder / LATEST).read_text(encoding="utf-8").strip()
        raise CheckpointError(
            f"{folder} was written by {writers} process(es), and this run has {args.world_size}. Any number can read "
            "its universal form; make it, and start this run again: python -m deepspeed.checkpoint.ds_to_universal "
            f"--inject_missing_state --input_folder {state} --output_folder {state}_universal"
        )
    config = args.hf_deepspeed_config.config
    config["checkpoint"] = {**config.get("checkpoint", {}), "load_universal": True}
