"""Holds what the layers have computed of a prompt that was read, and says what of it another prompt may use."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ada.engine.kv_slots import Pair
from ada.scheduling.execution_plan import ExecutionPlan


@dataclass(frozen=True, eq=False)
class PromptStates:
    """A prompt of T positions, without its latency token.

    embeds: (T, D), what entered the decoder, and positions (T,), where: by them a prompt is known again. states: (T,
    D), what entered layer P. layers: keys and values (K, T, d) of each layer; those from layer P on under ``plan``, of
    the heads that it keeps, and left out where they cannot be used again.
    """

    embeds: torch.Tensor
    positions: torch.Tensor
    states: torch.Tensor
    layers: tuple[Pair, ...]
    plan: ExecutionPlan | None

    @property
    def num_bytes(self) -> int:
        """The bytes of all tensors."""
        pairs = sum(keys.nbytes + values.nbytes for keys, values in self.layers)
        return self.embeds.nbytes + self.positions.nbytes + self.states.nbytes + pairs

    def common_length(self, embeds: torch.Tensor, positions: torch.Tensor) -> int:
        """Return how many of the first positions of a prompt (T, D) are the same."""
        count = min(len(self.embeds), len(embeds))
        if not count or self.embeds.shape[1:] != embeds.shape[1:] or self.embeds.dtype != embeds.dtype:
            return 0
        same = (self.embeds[:count] == embeds[:count]).all(dim=1) & (self.positions[:count] == positions[:count])
        return count if bool(same.all()) else int(same.int().argmin())

    def begins_with(self, other: PromptStates) -> bool:
        """Return whether another prompt is the beginning of this one, or the same."""
        count = len(other.embeds)
        return count <= len(self.embeds) and other.common_length(self.embeds, self.positions) == count


@dataclass(frozen=True, eq=False)
class KnownPrompt:
    """The first ``length`` positions of a prompt, which are those of ``prompt``."""

    prompt: PromptStates
    length: int

    @property
    def states(self) -> torch.Tensor:
        """What entered layer P, (length, D)."""
        return self.prompt.states[: self.length]

    def layer(self, index: int) -> Pair:
        """Return a layer's keys and values (K, length, d)."""
        keys, values = self.prompt.layers[index]
        return keys[:, : self.length], values[:, : self.length]

    def fits(self, plan: ExecutionPlan) -> bool:
        """Return whether the layers from P on count under a plan: they ran under the same."""
        return self.prompt.plan is not None and self.prompt.plan == plan
