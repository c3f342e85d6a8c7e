"""Describes a sequence that has been read into a slot: its plan, what the slot holds, and where its next token goes."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ada.latency.pacer import Pacer
from ada.scheduling.execution_plan import ExecutionPlan


@dataclass(eq=False)
class Row:
    """A sequence in the slot ``slot``.

    held: key-value heads that the slot has of each layer, in their order there: those of the plan, or all where the
    layer was masked. position: of the next token. columns: how many of the slot each layer has filled; those of layers
    that read fewer image tokens are fewer. pacer: what keeps promises for its tokens.
    """

    slot: int
    plan: ExecutionPlan
    held: Sequence[tuple[int, ...]]
    position: int
    columns: list[int]
    pacer: Pacer | None = None

    @functools.cached_property
    def gates(self) -> torch.Tensor:
        """The plan's switches (layers, 2, A), 0 or 1; a step asks for them whenever a row joins or leaves."""
        return self.plan.gates()

    def continue_under(self, plan: ExecutionPlan) -> None:
        """Go on under a plan within the row's own; the slot holds that plan's heads from now on."""
        self.plan, self.held = plan, [layer.heads for layer in plan.layers]
        self.__dict__.pop("gates", None)

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
