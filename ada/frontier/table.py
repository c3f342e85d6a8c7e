"""Predicts the accuracy of image tokens and units from measured points: the frontier of one checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import RegularGridInterpolator

from llava.errors import DataError

Setting = tuple[float, float, float]
"""Shares in [0, 1]: of image tokens, those that enter the decoder and those that later layers read; and of units."""


@dataclass(frozen=True)
class Point:
    """One measured setting.

    front: share of an image's tokens that enter the decoder; late: share of all of them that its later layers read;
    units: share of all units that run, prefix included; accuracy: of validation questions, in [0, 1].
    """

    front: float
    late: float
    units: float
    accuracy: float

    def __post_init__(self) -> None:
        values = (self.front, self.late, self.units, self.accuracy)
        numbers = all(isinstance(x, (int, float)) and not isinstance(x, bool) for x in values)
        if not (numbers and 0 < self.late <= self.front <= 1 and 0 < self.units <= 1 and 0 <= self.accuracy <= 1):
            raise DataError(f"{self} is not a point of a frontier; expected 0 < late <= front <= 1 and 0 < units <= 1")

    @property
    def setting(self) -> Setting:
        """Its shares of tokens and units."""
        return self.front, self.late, self.units


@dataclass(frozen=True)
class Frontier:
    """What settings are worth, by measured points.

    source: where the points come from, for people. More tokens and more units are taken to be no worse: a setting lies
    between the best accuracy of the points below it in all shares, and the worst of those above it in all, and is
    predicted halfway; so a point that noise has put above a larger one is averaged with it. Predictions at other shares
    than the points' are linear between them, and fall to 0 towards 0.
    """

    points: tuple[Point, ...]
    source: str

    def __post_init__(self) -> None:
        if not self.points:
            raise DataError("a frontier has no points; measure some: python -m ada.eval.frontier")

    def predicted(self, settings: Iterable[Setting]) -> NDArray[np.float64]:
        """Return the accuracies (n,) predicted for n settings. Each is exact at points that no noise has swapped."""
        asked = np.array(list(settings), dtype=np.float64).reshape(-1, 3)
        asked[:, 1] = asked[:, :2].min(axis=1)  # later layers read no more than enters
        highest = [axis[-1] for axis in self._grid.grid]
        found: NDArray[np.float64] = self._grid(np.minimum(asked, highest))
        return found

    @cached_property
    def _grid(self) -> RegularGridInterpolator:
        """Accuracies at all combinations of the points' shares, and 0 where a share is 0."""
        axes = [np.unique([0.0, *values]) for values in zip(*(point.setting for point in self.points), strict=True)]
        nodes = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)  # (f, l, u, 3)
        nodes[..., 1] = nodes[..., :2].min(axis=-1)
        return RegularGridInterpolator(axes, _halfway(nodes, self.points))


def _halfway(settings: NDArray[np.float64], points: Sequence[Point]) -> NDArray[np.float64]:
    """Return the accuracies (...) halfway between the points below and above settings (..., 3), 0 at a share of 0."""
    shares = np.array([point.setting for point in points])  # (p, 3)
    accuracy = np.array([point.accuracy for point in points])
    below = (shares <= settings[..., None, :]).all(axis=-1)  # (..., p)
    above = (shares >= settings[..., None, :]).all(axis=-1)
    low = np.where(below, accuracy, 0.0).max(axis=-1)
    high = np.where(above, accuracy, accuracy.max()).min(axis=-1)
    return np.where((settings > 0).all(axis=-1), (low + high) / 2, 0.0)
