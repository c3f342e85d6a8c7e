"""Asks a device how much of its memory is free."""

from __future__ import annotations

import psutil
import torch


def free_bytes(device: torch.device | str) -> int | None:
    """Return the bytes that new tensors on ``device`` can take; None for a kind that cannot say.

    On a GPU, what torch keeps of freed tensors counts as free; on a CPU, what the system can give without swapping.
    """
    kind = torch.device(device).type
    if kind == "cpu":
        return int(psutil.virtual_memory().available)
    if kind == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + kept
    if kind == "mps":
        return max(0, torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    return None
