"""Finds the checkpoint that a stopped run resumes from, and prepares DeepSpeed to read it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from llava.errors import CheckpointError
from llava.train.arguments import TrainingArguments

LATEST, LATEST_UNIVERSAL = "latest", "latest_universal"  # files of DeepSpeed that name the folder of its state


def complete_checkpoints(output_dir: str) -> list[Path]:
    """Return the output folder's ``checkpoint-*`` that were written completely, oldest first."""
    found = [p for p in Path(output_dir).glob("checkpoint-*") if (p / "trainer_state.json").is_file()]
    return sorted(found, key=lambda p: int(p.name.rpartition("-")[2]))


def last_checkpoint(args: TrainingArguments) -> str | None:
    """Return the checkpoint to resume from; None where the output folder has none.

    DeepSpeed keeps a part of its state for each process. Where the number of processes has changed, the state's
    universal form is read, which a command makes. Raises ``CheckpointError``, with that command, where it is missing;
    and where either the checkpoint or the run is with DeepSpeed, and the other without.
    """
    checkpoints = complete_checkpoints(args.output_dir)
    if not checkpoints:
        return None
    folder = checkpoints[-1]
    writers = _writers(folder)
    if (args.deepspeed is None) != (writers == 0):
        has, asked = ("with", "without") if writers else ("without", "with")
        raise CheckpointError(
            f"{folder} was written {has} DeepSpeed, and this run is {asked} it; resume with the "
            "flags that it was started with, or take its weights as --model_name_or_path of a new --output_dir"
        )
    if writers not in (0, args.world_size):
        _read_universal_form(folder, writers, args)
    return str(folder)


def restore_param_group_settings(
    optimizer: torch.optim.Optimizer, decays: Sequence[float], rates: Sequence[float]
) -> None:
    """Restore each parameter group's weight decay, learning rate and step count after DeepSpeed has loaded them.

    From the universal form of a ZeRO-3 checkpoint all groups get the first one's settings, and share one tensor as
    their step count, which each group would then increment.
    """
    for group, decay, rate in zip(optimizer.param_groups, decays, rates, strict=True):
        group["weight_decay"], group["lr"] = decay, rate
    for state in optimizer.state.values():
        if isinstance(state.get("step"), torch.Tensor):
            state["step"] = state["step"].clone()


def _writers(folder: Path) -> int:
    """Count the processes whose DeepSpeed state a checkpoint holds; 0 for one without DeepSpeed."""
    if not (folder / LATEST).is_file():
        return 0
    tag = (folder / LATEST).read_text(encoding="utf-8").strip()
    return len(list((folder / tag).glob("*_optim_states.pt")))


def _read_universal_form(folder: Path, writers: int, args: TrainingArguments) -> None:
    if not (folder / LATEST_UNIVERSAL).is_file():
        state = folder / (folder / LATEST).read_text(encoding="utf-8").strip()
        raise CheckpointError(
            f"{folder} was written by {writers} process(es), and this run has {args.world_size}. Any number can read "
            "its universal form; make it, then start this run again: python -m deepspeed.checkpoint.ds_to_universal "
            f"--inject_missing_state --input_folder {state} --output_folder {state}_universal"
        )
    config = args.hf_deepspeed_config.config
    config["checkpoint"] = {**config.get("checkpoint", {}), "load_universal": True}
