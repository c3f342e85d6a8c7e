"""Runs a vision tower's layers only as far as a hidden state of theirs is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

import torch


class HiddenStates(Sequence[torch.Tensor]):
    """States (N, 1 + patches, C) before the first layer and after each; those after the one asked for are not computed.

    The model's own list cannot be trusted here: once the language model around the tower is asked for hidden states or
    attentions, transformers hooks the tower a second time, and every state is listed twice.
    """

    def __init__(self, first: torch.Tensor, layers: Sequence[Any]) -> None:
        self._found, self._layers = [first], layers

    def __len__(self) -> int:
        return len(self._layers) + 1

    @overload
    def __getitem__(self, index: int) -> torch.Tensor: ...

    @overload
    def __getitem__(self, index: slice) -> list[torch.Tensor]: ...

    def __getitem__(self, index: int | slice) -> torch.Tensor | list[torch.Tensor]:
        """Return a state, by its number from the start or (negative) from the end, or several."""
        if isinstance(index, slice):
            return [self[number] for number in range(len(self))[index]]
        number = range(len(self))[index]
        while len(self._found) <= number:
            self._found.append(self._layers[len(self._found) - 1](self._found[-1], None))
        return self._found[number]


class TowerOutputs:
    """What ``feature_select`` reads of a vision model's run: ``hidden_states``, of which the first is ``embedded``."""

    def __init__(self, embedded: torch.Tensor, layers: Sequence[Any]) -> None:
        self.hidden_states: Sequence[torch.Tensor] = HiddenStates(embedded, layers)
