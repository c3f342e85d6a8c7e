"""Joins and leaves the process group of a distributed run, and gathers metrics from its processes."""

from __future__ import annotations

from typing import Any

from torch import distributed

from llava.train.arguments import TrainingArguments
from llava.train.policy import Figure


def init_distributed(args: TrainingArguments) -> None:
    """Join the other processes before a model is built, as under ZeRO-3 its weights are sharded while they are read.

    Without DeepSpeed there is nothing to do: the trainer joins them.
    """
    if args.deepspeed is None:
        return
    import deepspeed

    deepspeed.init_distributed(dist_backend="gloo" if args.use_cpu else None)


def destroy_distributed() -> None:
    """Leave the process group once all processes are here, so that no thread of it outlives the interpreter."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.barrier()
        distributed.destroy_process_group()


def gather_metrics(metrics: dict[str, list[Figure]]) -> dict[str, list[Figure]]:
    """Return the values of all processes under each name, in the order of the processes' ranks."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return metrics
    gathered: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(gathered, metrics)
    combined: dict[str, list[Figure]] = {}
    for own in gathered:
        for name, values in own.items():
            combined.setdefault(name, []).extend(values)
    return combined
