"""One process among those of a distributed run."""

from __future__ import annotations

from typing import Any

from torch import distributed


def init_distributed(args: Any) -> None:
    """Meet the other processes before a model is built: under ZeRO-3 its weights are dealt out while they are read.

    args: the parsed TrainingArguments. Alone, or without DeepSpeed, there is nothing to do.
    """
    if args.deepspeed is None:
        return
    import deepspeed

    deepspeed.init_distributed(dist_backend="gloo" if args.use_cpu else None)


def destroy_distributed() -> None:
    """Part from the others once all have come this far: their threads would else meet an interpreter that is gone."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.barrier()
        distributed.destroy_process_group()


def gather_metrics(figures: dict[str, list[float]]) -> dict[str, list[float]]:
    """Every process's figures together, in the order of the processes."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return figures
    gathered: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(gathered, figures)
    together: dict[str, list[float]] = {}
    for own in gathered:
        for key, values in own.items():
            together.setdefault(key, []).extend(values)
    return together
