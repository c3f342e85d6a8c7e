"""Declares what a decode step reads and writes of the rows' key-value slots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch


class KeyValueSlots(Protocol):
    """Static memory for the rows of a running batch: row r is slot r.

    A row's i-th kept key-value head of a layer has index i in its slot; its columns 0 to length - 1 are filled. Layers
    that read fewer image tokens have fewer columns: each layer belongs to a level, which has lengths. Positions
    are counted separately, since image tokens that are left out leave gaps between them.
    """

    @property
    def keys(self) -> Sequence[torch.Tensor]:
        """Each layer's keys (slots, A, capacity, d)."""

    @property
    def values(self) -> Sequence[torch.Tensor]:
        """Each layer's values (slots, A, capacity, d)."""

    @property
    def lengths(self) -> torch.Tensor:
        """Filled columns (levels, slots), integers; a step adds 1 for each of its rows."""

    @property
    def positions(self) -> torch.Tensor:
        """Each row's next position (slots,), integers; a step adds 1 for each of its rows."""

    @property
    def levels(self) -> Sequence[int]:
        """The level of each layer."""
