"""Describes a sequence that has been read into a slot: what each layer ran of it, and where its next token goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ada.execution.call_state import LayerAction
from ada.scheduling.execution_plan import ExecutionPlan


@dataclass(eq=False)
class Row:
    """A sequence in the slot ``slot``.

    plan, actions: of each layer, as the prompt ran it. position: of the next token. columns: how many of the slot each
    layer has filled; those of layers that read fewer image tokens are fewer.
    """

    slot: int
    plan: ExecutionPlan
    actions: Sequence[LayerAction]
    position: int
    columns: list[int]

    def held_heads(self, layer: int) -> tuple[int, ...]:
        """Return the key-value heads that a layer's slot holds, in the order in which they stand there."""
        action = self.actions[layer]
        if action.skip:
            return ()
        return tuple(range(self.plan.num_switches)) if action.narrow is None else self.plan.layers[layer].heads

    def advance(self) -> None:
        """Count a token that was decoded."""
        self.position += 1
        self.columns = [columns + 1 for columns in self.columns]
