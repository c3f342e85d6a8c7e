"""Memory for gathered weights that is used again, since fresh memory costs more than the copy into it.

On a CPU, the first touch of a page takes several times as long as copying into it; freed blocks of this size go
straight back to the system. On a GPU torch's caching allocator does the same job.
"""

from __future__ import annotations

import threading
import weakref

import torch


class WeightPool:
    """Hands out flat buffers; a buffer comes back by itself when the last tensor on it is gone."""

    def __init__(self) -> None:
        self._free: dict[tuple[int, torch.dtype], list[torch.Tensor]] = {}
        self._lock = threading.RLock()  # re-entrant: a collection in here may give a buffer back

    def take(self, shape: tuple[int, int], room: int, like: torch.Tensor) -> torch.Tensor:
        """An uninitialised (rows, columns) tensor of ``like``'s dtype, on a buffer of ``room`` elements.

        Asking for the same room whatever the shape lets every plan of a layer use the same buffers; what lies behind
        the shape is never touched and costs nothing.
        """
        if like.device.type != "cpu":
            return like.new_empty(shape)
        key = (room, like.dtype)
        with self._lock:
            free = self._free.setdefault(key, [])
            buffer = free.pop() if free else like.new_empty(room)
        tensor = buffer[: shape[0] * shape[1]].view(shape)
        weakref.finalize(tensor, self._give_back, key, buffer).atexit = False
        return tensor

    def clear(self) -> None:
        """Let go of the buffers that are not in use."""
        with self._lock:
            self._free.clear()

    def _give_back(self, key: tuple[int, torch.dtype], buffer: torch.Tensor) -> None:
        with self._lock:
            self._free.setdefault(key, []).append(buffer)
