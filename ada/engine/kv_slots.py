"""Holds the keys and values of running sequences in static memory: one slot each, which a sequence joins by writing."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def kv_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """Return what keys and values of a model of ``dtype`` are kept in on a device.

    On a CPU that is float32: one query attends three to seven times as fast in it as in half precision, although more
    is read.
    """
    return torch.float32 if device.type == "cpu" else dtype


Pair = tuple[torch.Tensor, torch.Tensor]

STEP = 256  # columns that capacity is a multiple of
GROWTH = 1.5  # while it grows, the old memory and the new are both there


class KVSlots:
    """Keys and values of each layer, (slots, heads, capacity, d).

    The i-th head that a row keeps of a layer stands at index i there, so that a narrow row's heads are the first ones,
    whatever its plan. Its columns are the first ones, too, without padding. longest: columns that a sequence may have.
    """

    def __init__(
        self, num_layers: int, slots: int, heads: int, head_dim: int, like: torch.Tensor, longest: int = 2**31
    ) -> None:
        self.heads, self.head_dim, self.slots, self.longest, self.capacity = heads, head_dim, slots, longest, 0
        self._memory = like.new_zeros(num_layers, 2, slots, heads, 0, head_dim)
        self.layers = self._pairs()

    @torch.inference_mode(False)
    @torch.no_grad()
    def reach(self, columns: int) -> None:
        """Hold at least so many columns; what is there stays. Later calls may write, in inference mode or not."""
        if columns <= self.capacity:
            return
        wanted = max(columns, min(int(GROWTH * self.capacity), self.longest))
        capacity = STEP * -(-wanted // STEP)
        old = self._memory
        # Zeros: a masked column must be finite.
        self._memory = old.new_zeros(*old.shape[:4], capacity, self.head_dim)
        self._memory[..., : self.capacity, :] = old
        self.layers, self.capacity = self._pairs(), capacity

    def _pairs(self) -> list[Pair]:
        return [(keys, values) for keys, values in (layer.unbind(0) for layer in self._memory.unbind(0))]

    def write_prompt(self, layer: int, slot: int, keys: torch.Tensor, values: torch.Tensor, start: int = 0) -> None:
        """Write columns of a prompt, from ``start`` on: keys and values (T, K, d) of the K heads that its row keeps."""
        for cache, states in zip(self.layers[layer], (keys, values), strict=True):
            cache[slot, : states.shape[1], start : start + len(states)] = states.transpose(0, 1)

    def keep_heads(self, layer: int, slot: int, indices: Sequence[int]) -> None:
        """Keep of a row's heads of a layer those at ``indices``, which become the first ones."""
        for states in self.layers[layer]:
            states[slot, : len(indices)] = states[slot, list(indices)]

    def move(self, source: int, target: int) -> None:
        """Move a row into another slot."""
        for keys, values in self.layers:
            keys[target], values[target] = keys[source], values[source]
