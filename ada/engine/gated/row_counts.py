"""Counts how far each slot's row has come, on the device, where the kernels read it."""

from __future__ import annotations

from collections.abc import Sequence

import torch


class RowCounts:
    """Filled columns and next positions of ``num_slots`` slots: int32 tensors, which stay where they are."""

    def __init__(self, num_layers: int, num_slots: int, device: torch.device) -> None:
        self._counts = torch.zeros(num_layers + 1, num_slots, dtype=torch.int32, device=device)
        self.columns = self._counts[:-1]
        """(L, slots): columns of each layer that are filled."""
        self.positions = self._counts[-1]
        """(slots,): positions of the rows' next tokens."""

    def set(self, slot: int, columns: Sequence[int], position: int) -> None:
        """Say where a row is: columns that each layer has filled, and its next position. The host does not wait."""
        counts = torch.tensor([*columns, position], dtype=torch.int32)
        if self._counts.is_cuda:
            counts = counts.pin_memory()
        self._counts[:, slot].copy_(counts, non_blocking=True)

    def advance(self, used: torch.Tensor) -> None:
        """Add a column and a position to the slots where ``used`` (slots,) is 1."""
        self._counts += used
