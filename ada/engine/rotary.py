"""Keeps the rotary encodings of positions, so that a step looks them up."""

from __future__ import annotations

from typing import Any

import torch

from ada.engine.decoder import Rope

STEP = 256  # positions that a table grows by, and a multiple of what it holds


class RotaryTable:
    """Cosines and signed sines of positions 0, 1, ..., made by the model's own module and grown when needed."""

    def __init__(self, rotary: Any, like: torch.Tensor) -> None:
        self._rotary, self._like = rotary, like
        self._cosines = self._sines = like.new_empty(0, 1, 0)

    def at(self, positions: torch.Tensor, longest: int) -> Rope:
        """Return what encodes ``positions`` (N,), all of them below ``longest``."""
        self.reach(longest)
        return self._cosines[positions], self._sines[positions]

    def reach(self, longest: int) -> None:
        """Hold all positions below ``longest``."""
        if longest <= len(self._cosines):
            return
        count = max(2 * len(self._cosines), STEP * -(-longest // STEP))
        positions = torch.arange(count, device=self._like.device)[None]
        cosines, sines = self._rotary(self._like, position_ids=positions)
        first, second = sines[0].chunk(2, dim=-1)
        self._cosines, self._sines = cosines[0][:, None], torch.cat([-first, second], dim=-1)[:, None]
