"""Watches that a run has something to learn: steps without a trained token are reported, a run of them is an error."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from llava.errors import DataError
from llava.train.data.sample_length import count_labels

log = logging.getLogger("llava.train")

MAX_EMPTY_STEPS = 10  # at the start of a run


class LabelWatch:
    """Counts the steps with and without trained tokens. limit: the flag ``--model_max_length``, for messages."""

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self.filled, self.empty = 0, 0

    def count(self, batches: Sequence[Mapping[str, Any]], items: Any, step: int) -> Any:
        """Return the number of trained tokens in a step's batches over all processes, at least 1: losses are divided
        by it.

        items: this number as the trainer has it, or None. Batches without labels, of a script's trainer with a loss of
        its own, are passed over. Raises ``DataError`` where a run begins with ``MAX_EMPTY_STEPS`` steps without any.
        """
        if not any("labels" in batch for batch in batches):
            return items
        own = sum(count_labels(batch["labels"]) for batch in batches if "labels" in batch)
        if own or (items is not None and int(items)):  # the trainer's is on the device: asked only where it matters
            self.filled += 1
            return items
        self.empty += 1
        log.warning("step %d has no trained token within --model_max_length %s", step + 1, self.limit)
        if self.empty >= MAX_EMPTY_STEPS:
            self.require_any()
        return None if items is None else items + 1

    def require_any(self) -> None:
        """Raise ``DataError`` where no step so far had a trained token."""
        if self.empty and not self.filled:
            raise DataError(
                f"nothing was trained: {self.empty} step(s) had no token of an answer within --model_max_length "
                f"{self.limit}; choose a larger one: an image's positions count"
            )
