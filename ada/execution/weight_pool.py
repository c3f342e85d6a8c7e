"""Reuses the memory of cut weights, since first touching fresh memory costs more than the copy into it.

On a CPU, the first touch of a page takes several times as long as copying into it; freed blocks of this size go
straight back to the system. On a GPU torch's caching allocator does the same job.
"""

from __future__ import annotations

import threading
import weakref

import torch


class WeightPool:
    """Thread-safe pool of flat buffers; a buffer returns by itself when the last tensor on it is freed."""

    def __init__(self) -> None:
        self._free: dict[tuple[int, torch.dtype], list[torch.Tensor]] = {}
        self._lock = threading.RLock()  # re-entrant: a collection in here may give a buffer back

    def take(self, shape: tuple[int, int], size: int, like: torch.Tensor) -> torch.Tensor:
        """Return an uninitialised (rows, columns) tensor of ``like``'s dtype, on a buffer of ``size`` elements.

        Asking for the same size whatever the shape lets every plan of a layer use the same buffers; what lies after
        the shape is never touched and costs nothing.
        """
        if like.device.type != "cpu":
            return like.new_empty(shape)
        key = (size, like.dtype)
        with self._lock:
            free = self._free.setdefault(key, [])
            buffer = free.pop() if free else like.new_empty(size)
        tensor = buffer[: shape[0] * shape[1]].view(shape)
        weakref.finalize(tensor, self._give_back, key, buffer).atexit = False
        return tensor

    def clear(self) -> None:
        """Free the buffers that are not in use."""
        with self._lock:
            self._free.clear()

    def _give_back(self, key: tuple[int, torch.dtype], buffer: torch.Tensor) -> None:
        with self._lock:
            self._free.setdefault(key, []).append(buffer)
