"""Draws the random numbers of training: every sample's own, named by seed, step and index in the step's batch.

A step's samples may be spread over processes and accumulated passes in any way: each keeps its budget and its noise,
and a run that goes on from a checkpoint draws what it would have drawn. All draws of a training step come from here.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch

from ada.scheduling.selection import Noise, gumbel_of


@dataclass(frozen=True)
class Draws:
    """Random numbers of one batch, whose rows are the samples from index ``first`` on of the step's full batch.

    Drawn on the CPU, so that every device draws alike.
    """

    seed: int
    step: int
    first: int = 0

    @classmethod
    def at_random(cls) -> Draws:
        """Return draws of a batch outside a run, which ``torch.manual_seed`` makes repeatable."""
        return cls(int(torch.randint(2**31, (1,))), 0)

    def uniform(self, rows: int, purpose: str = "uniform") -> torch.Tensor:
        """Draw one number a row, in [0, 1): (rows,), float32; for each ``purpose`` others."""
        return torch.cat([torch.rand(1, generator=own) for own in self._generators(purpose, rows)])

    def integers(self, low: int, high: int, rows: int) -> torch.Tensor:
        """Draw one integer a row, uniform over ``low`` to ``high``, both included: (rows,), int64."""
        drawn = [torch.randint(low, high + 1, (1,), generator=own) for own in self._generators("integers", rows)]
        return torch.cat(drawn)

    def gumbel(self, rows: int) -> Noise:
        """Return Gumbel noise on the CPU; a row's draws do not depend on the other rows."""
        generators = self._generators("gumbel", rows)

        def draw(shape: tuple[int, ...]) -> torch.Tensor:
            uniform = torch.stack([torch.rand(shape[1:], generator=own) for own in generators])
            return gumbel_of(uniform)

        return draw

    def _generators(self, purpose: str, rows: int) -> list[torch.Generator]:
        """Make a generator a row. What one purpose draws shifts no other's draws."""
        names = (f"{self.seed}/{self.step}/{self.first + row}/{purpose}" for row in range(rows))
        return [torch.Generator().manual_seed(random.Random(name).getrandbits(32)) for name in names]
