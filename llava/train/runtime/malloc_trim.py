"""Returns freed memory to the system during training on a CPU."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback, TrainerState

from llava.heap import trim_heap

INTERVAL_STEPS = 25


class MallocTrimCallback(TrainerCallback):  # type: ignore[misc]
    """Calls ``trim_heap`` every ``INTERVAL_STEPS`` steps.

    Batches differ in length, so their tensors differ in size and leave holes that later ones do not fit. A heap that
    keeps all freed memory, as the CPU presets set it up because new memory is slow, grows as long as training goes on.
    The package's README has the measurement.
    """

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Trim the heap, every ``INTERVAL_STEPS`` steps."""
        if state.global_step % INTERVAL_STEPS == 0:
            trim_heap()
