"""Declares what the gated step uses of an engine's key-value slots, and of the rows in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from ada.scheduling.execution_plan import ExecutionPlan


class KeyValueSlots(Protocol):
    """Static memory for the keys and values of the running rows."""

    @property
    def layers(self) -> Sequence[tuple[torch.Tensor, torch.Tensor]]:
        """Each layer's keys and values, (slots, A, capacity, d) each; another object where memory has grown."""

    def reach(self, columns: int) -> None:
        """Hold at least so many columns; what is there stays."""


class SlotRow(Protocol):
    """A sequence that has been read into a slot."""

    @property
    def slot(self) -> int:
        """Where its keys and values are."""

    @property
    def plan(self) -> ExecutionPlan:
        """What runs for it."""

    @property
    def position(self) -> int:
        """The position of its next token. Image tokens that were left out may leave gaps between positions."""

    @property
    def columns(self) -> Sequence[int]:
        """How many columns of its slot each layer has filled; layers that read fewer image tokens have fewer."""

    def held_heads(self, layer: int) -> Sequence[int]:
        """Return the key-value heads that a layer's slot holds, in the order in which they stand there."""

    def advance(self) -> None:
        """Count a token that was decoded."""
