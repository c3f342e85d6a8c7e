"""Provides the memory of cut weights, up to a limit, and reuses it.

On a CPU, the first touch of a page takes several times as long as copying into it, and freed blocks of this size go
straight back to the system: so buffers are kept. On a GPU torch's caching allocator does the same job.
"""

from __future__ import annotations

import threading
import weakref
from dataclasses import dataclass

import torch

Kind = tuple[int, torch.dtype]


class PoolIsFull(Exception):
    """The limit does not leave the memory that was asked for."""


@dataclass(eq=False)
class Buffer:
    """Flat memory for one cut weight of ``kind``; ``touched``: bytes from its start that have been written to."""

    kind: Kind
    data: torch.Tensor
    touched: int = 0


class WeightPool:
    """Thread-safe pool of up to ``max_bytes``; a buffer returns by itself when the last tensor on it is freed.

    bytes: what the pool takes, in use or free.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self._free: dict[Kind, list[Buffer]] = {}
        self._lock = threading.RLock()  # re-entrant: a collection in here may give a buffer back

    def take(self, shape: tuple[int, int], size: int, like: torch.Tensor) -> torch.Tensor:
        """Return an uninitialised (rows, columns) tensor of ``like``'s dtype, on a buffer of ``size`` elements.

        Asking for the same size whatever the shape lets every plan of a layer use the same buffers; what lies after
        the shape is never touched, takes no memory and does not count. Raises PoolIsFull.
        """
        needed = shape[0] * shape[1] * like.element_size()
        with self._lock:
            buffer = self._buffer((size, like.dtype), needed, like)
            self.bytes += max(0, needed - buffer.touched)
            buffer.touched = max(needed, buffer.touched)
        tensor = buffer.data[: shape[0] * shape[1]].view(shape)
        weakref.finalize(tensor, self._give_back, buffer).atexit = False
        return tensor

    def clear(self) -> None:
        """Free the buffers that are not in use."""
        with self._lock:
            for kind in [*self._free]:
                self._drop(kind)

    def _buffer(self, kind: Kind, needed: int, like: torch.Tensor) -> Buffer:
        """The free buffer of which most is touched, or a new one; others are freed where the limit needs it."""
        if like.device.type != "cpu":
            self._check(needed)
            return Buffer(kind, like.new_empty(needed // like.element_size()))
        free = self._free.get(kind, [])
        best = max(free, key=lambda buffer: buffer.touched, default=None)
        if best is not None:
            free.remove(best)
        touched = 0 if best is None else best.touched
        try:
            self._check(needed - touched)
        except PoolIsFull:
            if best is not None:
                self._free.setdefault(kind, []).append(best)  # the check may have dropped the list
            raise
        return Buffer(kind, like.new_empty(kind[0])) if best is None else best

    def _check(self, growth: int) -> None:
        """Raise PoolIsFull unless the pool may grow by so many bytes, once all free buffers are freed."""
        for kind in [*self._free]:
            if self.bytes + growth <= self.max_bytes:
                break
            self._drop(kind)
        if growth > 0 and self.bytes + growth > self.max_bytes:
            raise PoolIsFull

    def _drop(self, kind: Kind) -> None:
        self.bytes -= sum(buffer.touched for buffer in self._free.pop(kind, []))

    def _give_back(self, buffer: Buffer) -> None:
        with self._lock:
            if buffer.data.device.type == "cpu":
                self._free.setdefault(buffer.kind, []).append(buffer)
            else:
                self.bytes -= buffer.touched
