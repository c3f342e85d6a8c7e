"""Counts how far each row has come, on the device where the kernels read it, and on the host, which sees the end."""

from __future__ import annotations

from collections.abc import Sequence

import torch


class SlotLengths:
    """Filled columns and next positions of ``num_slots`` slots, whose rows may reach ``max_positions`` positions."""

    def __init__(self, num_layers: int, num_slots: int, max_positions: int, device: torch.device) -> None:
        self._counts = torch.zeros(num_layers + 1, num_slots, dtype=torch.int32, device=device)
        self.columns = self._counts[:-1]
        """(L, slots): columns of each layer that are filled."""
        self.positions = self._counts[-1]
        """(slots,): positions of the rows' next tokens."""
        self._max_positions, self._steps = max_positions, 0
        self._ends = [(0, 0)] * num_slots  # columns and position, less the steps that had been run by then

    def set(self, slot: int, columns: Sequence[int], position: int) -> None:
        """Say where a row is: the columns that each layer has filled, and the position of its next token."""
        counts = torch.tensor([*columns, position], dtype=torch.int32)
        if self._counts.is_cuda:
            counts = counts.pin_memory()
        self._counts[:, slot].copy_(counts, non_blocking=True)
        self._ends[slot] = max(columns) - self._steps, position - self._steps

    def move(self, source: int, target: int) -> None:
        """Move a row to another slot."""
        self._counts[:, target] = self._counts[:, source]
        self._ends[target] = self._ends[source]

    def advance(self, used: torch.Tensor) -> None:
        """Add a column and a position to the slots where ``used`` (slots,) is 1, on the device."""
        self._counts += used

    def count(self) -> None:
        """Count a step on the host."""
        self._steps += 1

    def check(self, rows: int, capacity: int) -> None:
        """Raise ValueError where one of the first ``rows`` slots cannot take one token more."""
        for slot, (columns, position) in enumerate(self._ends[:rows]):
            if columns + self._steps >= capacity:
                raise ValueError(f"slot {slot} holds {capacity} columns and all are filled; give the slots more")
            if position + self._steps >= self._max_positions:
                raise ValueError(f"slot {slot} has reached all of its {self._max_positions} positions; allow for more")
