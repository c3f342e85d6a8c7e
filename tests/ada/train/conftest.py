"""A batch to train on, and noise that can be given to it or to its single samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

IMAGE, IGNORE = -200, -100
ROWS = [
    ([1, 17, IMAGE, 60, 61, 62, 30, 31], [IGNORE] * 5 + [62, 30, 31]),
    ([1, IMAGE, 5, 6, 7], [IGNORE, IGNORE, IGNORE, 6, 7]),
    ([1, 40, 41, 42, 43, 44], [IGNORE, 40, 41, IGNORE, IGNORE, 44]),  # two answers: the token goes before the last
    ([1, IMAGE, 8, 9, 10, 11], [IGNORE] * 4 + [10, 11]),
]


def padded(rows: list) -> dict[str, torch.Tensor]:
    width = max(len(ids) for ids, _ in rows)
    pad = [width - len(ids) for ids, _ in rows]
    return {
        "input_ids": torch.tensor([ids + [0] * n for (ids, _), n in zip(rows, pad, strict=True)]),
        "labels": torch.tensor([labels + [IGNORE] * n for (_, labels), n in zip(rows, pad, strict=True)]),
        "attention_mask": torch.tensor([[1] * len(ids) + [0] * n for (ids, _), n in zip(rows, pad, strict=True)]),
    }


class Noise:
    """Gumbel noise that was drawn before, given to the batch or to single rows."""

    def __init__(self, seed: int, row: int | None = None, rows: int = len(ROWS)) -> None:
        self.generator, self.row, self.rows = torch.Generator().manual_seed(seed), row, rows

    def __call__(self, shape: tuple[int, ...]) -> torch.Tensor:
        uniform = torch.rand((self.rows, *shape[1:]), generator=self.generator).clamp(1e-6, 1 - 1e-6)
        noise = -(-uniform.log()).log()
        return noise if self.row is None else noise[self.row : self.row + 1]


@pytest.fixture(scope="session")
def samples() -> list[tuple[list[int], list[int]]]:
    """Token ids and labels of each sample. The third has no image."""
    return ROWS


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    """The samples, padded on the right."""
    return padded(ROWS)


@pytest.fixture(scope="session")
def noise() -> type[Noise]:
    return Noise


@pytest.fixture
def train_batch(batch, pixels) -> Callable[..., Any]:
    """``train_batch(model, granted, seed)``: the batch through ``forward``, with chosen noise."""

    def run(model: Any, granted: torch.Tensor, seed: int) -> Any:
        return model(**batch, images=pixels, granted_units=granted, noise=Noise(seed), use_cache=False)

    return run
