"""Finds the checkpoint that a stopped run resumes from, and prepares DeepSpeed to read it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from llava.errors import CheckpointError
from llava.model.checkpoint.weights_io import listed
from llava.train.arguments import TrainingArguments
from llava.train.runtime.checkpoint_folders import (
    STATE_FILE,
    deepspeed_state,
    deepspeed_writers,
    missing_parts,
    numbered_checkpoints,
)

log = logging.getLogger("llava.train")

LATEST_UNIVERSAL = "latest_universal"  # the file of DeepSpeed that names the folder of its state's universal form


def last_checkpoint(args: TrainingArguments) -> str | None:
    """Return the checkpoint to resume from; None where the output folder has none.

    Incomplete ones are passed over with a warning. DeepSpeed keeps a part of its state for each process. Where the
    number of processes has changed, the state's universal form is read, which a command makes.

    Raises ``CheckpointError`` where there are only incomplete checkpoints, as with ``--save_only_model True``; with
    the command, where the universal form is missing; and where either the checkpoint or the run is with DeepSpeed, and
    the other without.
    """
    folder = _newest_complete(args)
    if folder is None:
        return None
    writers = deepspeed_writers(folder)
    if (args.deepspeed is None) != (writers == 0):
        has, asked = ("with", "without") if writers else ("without", "with")
        raise CheckpointError(
            f"{folder} was written {has} DeepSpeed, and this run is {asked} it; resume with the "
            "flags that it was started with, or take its weights as --model_name_or_path of a new --output_dir"
        )
    if writers not in (0, args.world_size):
        _read_universal_form(folder, writers, args)
    return str(folder)


def _newest_complete(args: TrainingArguments) -> Path | None:
    config = {} if args.deepspeed is None else args.hf_deepspeed_config.config
    in_deepspeed = "scheduler" in config or "optimizer" in config  # then it keeps the schedule of learning rates itself
    unusable: list[tuple[Path, str]] = []
    for folder in reversed(numbered_checkpoints(args.output_dir)):
        lacks = missing_parts(folder, has_scheduler_file=not in_deepspeed)
        if not lacks:
            return folder
        log.warning("%s is passed over: it lacks %s", folder, listed(lacks))
        if (folder / STATE_FILE).is_file():  # written last: without it a run was killed while it saved
            unusable.append((folder, listed(lacks)))
    if unusable:
        newest, lacks_text = unusable[0]
        raise CheckpointError(
            f"{newest} cannot be resumed from, nor can an earlier one: it lacks {lacks_text}, as with "
            "--save_only_model True; take its weights as --model_name_or_path of a new --output_dir, or remove the "
            "checkpoints to start this run anew"
        )
    return None


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


def _read_universal_form(folder: Path, writers: int, args: TrainingArguments) -> None:
    if not (folder / LATEST_UNIVERSAL).is_file():
        state = deepspeed_state(folder)
        raise CheckpointError(
            f"{folder} was written by {writers} process(es), and this run has {args.world_size}. Any number can read "
            "its universal form; make it, then start this run again: python -m deepspeed.checkpoint.ds_to_universal "
            f"--inject_missing_state --input_folder {state} --output_folder {state}_universal"
        )
    config = args.hf_deepspeed_config.config
    config["checkpoint"] = {**config.get("checkpoint", {}), "load_universal": True}
