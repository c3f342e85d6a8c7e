"""Keeps a training run on a CPU within its memory."""

from __future__ import annotations

import ctypes
from typing import Any

from transformers import TrainerCallback

EVERY = 25  # steps


class MallocTrimCallback(TrainerCallback):
    """Hands what is free back to the system now and then.

    Batches differ in length, so their tensors differ in size and leave holes that no later one fits: a heap that keeps
    all it ever had (as the recipes for a CPU make it, since fresh memory is slow) would grow without end. glibc alone
    can do it; elsewhere nothing is done.
    """

    def __init__(self) -> None:
        self._trim: Any = getattr(ctypes.CDLL(None), "malloc_trim", None)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Every ``EVERY`` steps."""
        if self._trim is not None and state.global_step % EVERY == 0:
            self._trim(0)
