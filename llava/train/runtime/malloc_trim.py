"""Returns freed memory to the system during training on a CPU."""

from __future__ import annotations

import ctypes
from typing import Any

from transformers import TrainerCallback, TrainerState

INTERVAL_STEPS = 25


class MallocTrimCallback(TrainerCallback):  # type: ignore[misc]
    """Calls glibc's ``malloc_trim`` every ``INTERVAL_STEPS`` steps; does nothing with other C libraries.

    Batches differ in length, so their tensors differ in size and leave holes that later ones do not fit. A heap that
    keeps all freed memory, as the CPU presets set it up because new memory is slow, grows as long as training goes on.
    The package's README has the measurement.
    """

    def __init__(self) -> None:
        self._trim: Any = getattr(ctypes.CDLL(None), "malloc_trim", None)

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Trim the heap, every ``INTERVAL_STEPS`` steps."""
        if self._trim is not None and state.global_step % INTERVAL_STEPS == 0:
            self._trim(0)
