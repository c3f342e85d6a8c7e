"""Keeps a model's idle rows where making them anew takes long: on a GPU, whose graphs belong to their slots."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ada.engine.engine_rows import EngineRows


class IdleRows:
    """Thread-safe: a call has its rows for itself. One is kept between calls; a copied or unpickled one keeps none."""

    def __init__(self) -> None:
        self._kept: EngineRows | None = None
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[IdleRows], tuple[()]]:
        return IdleRows, ()

    @contextmanager
    def of(self, model: Any, count: int, like: torch.Tensor) -> Iterator[EngineRows]:
        """Yield empty rows for ``count`` sequences of ``model``; like: a tensor of its dtype, on its device."""
        rows = self._take(count, like) or _made(model, count, like)
        try:
            yield rows
        finally:
            rows.clear()
            if rows.gated is not None:
                with self._lock:
                    self._kept = rows

    def _take(self, count: int, like: torch.Tensor) -> EngineRows | None:
        with self._lock:
            rows, self._kept = self._kept, None
        if rows is None or not rows.fits(count, like):
            return None
        return rows


@torch.inference_mode(False)
@torch.no_grad()
def _made(model: Any, count: int, like: torch.Tensor) -> EngineRows:
    """New rows, which calls may use in inference mode or not, whichever comes first."""
    return EngineRows(model, count, like)
