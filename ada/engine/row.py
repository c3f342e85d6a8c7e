"""Describes a sequence that has been read into a slot: its plan, what the slot holds, and where its next token goes."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ada.scheduling.execution_plan import ExecutionPlan


@dataclass(eq=False)
class Row:
    """A sequence in the slot ``slot``.

    held: key-value heads that the slot has of each layer, in their order there: those of the plan, or all where the
    layer was masked. position: of the next token. columns: how many of the slot each layer has filled; those of layers
    that read fewer image tokens are fewer.
    """

    slot: int
    plan: ExecutionPlan
    held: Sequence[tuple[int, ...]]
    position: int
    columns: list[int]

    @functools.cached_property
    def gates(self) -> torch.Tensor:
        """The plan's switches (layers, 2, A), 0 or 1; a step asks for them whenever a row joins or leaves."""
        return self.plan.gates()

    def held_heads(self, layer: int) -> tuple[int, ...]:
        """Return the key-value heads that the slot has of a layer."""
        return self.held[layer]

    def advance(self) -> None:
        """Count a token that was decoded."""
        self.position += 1
        self.columns = [columns + 1 for columns in self.columns]


def heads_held(plan: ExecutionPlan, layer: int, masked: bool) -> tuple[int, ...]:
    """Return the key-value heads of which a layer made keys and values; masked: it ran dense under gates."""
    return tuple(range(plan.num_switches)) if masked else plan.layers[layer].heads
