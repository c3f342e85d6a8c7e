"""Caches narrow layers by layer and kept set: cut once per plan whoever asks, and bounded in bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

import torch
from torch import nn

from ada.execution.layer_weights import LayerWeights, copied, cut, joined, projections
from ada.execution.weight_pool import PoolIsFull, WeightPool
from ada.memory.free_memory import free_bytes
from ada.memory.narrow_limit import DefaultLimit
from ada.scheduling.execution_plan import LayerPlan

Version = tuple[tuple[int, int], ...]


@dataclass
class _Entry:
    """Weights of one layer, made from parameters of ``version``. lock: held by the thread that makes them."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    version: Version | None = None
    weights: LayerWeights | None = None


class NarrowCache:
    """Thread-safe cache of layers' weights, joined: dense ones, and least-recently-used narrow ones.

    The narrow ones take up to ``max_bytes``, those that running answers hold included; where more would be needed, a
    layer is not cut. An entry made from weights that have changed since (a training step, a move to another device) is
    made anew. Where gradients are wanted nothing is kept: the layer is cut inside the graph. A copied or unpickled
    cache is empty. Without ``max_bytes`` the limit is the default of what is free as the first layer is cut;
    ``tunable_bytes`` then counts what the tunable layers take, which may have been quantised since they were made.
    """

    def __init__(self, max_bytes: int | None = None, tunable_bytes: Callable[[], int] | None = None) -> None:
        self._max_bytes, self._tunable_bytes = max_bytes, tunable_bytes
        self._pool = WeightPool(max_bytes or 0)
        self._dense: dict[int, _Entry] = {}
        self._narrow: OrderedDict[tuple[int, LayerPlan], _Entry] = OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[NarrowCache], tuple[int | None, Callable[[], int] | None]]:
        return NarrowCache, (self.max_bytes, self._tunable_bytes)

    @property
    def max_bytes(self) -> int | None:
        """The limit of what narrow layers take; None while it is still to be taken from what is free."""
        return self._max_bytes

    @max_bytes.setter
    def max_bytes(self, value: int | None) -> None:
        with self._lock:
            self._max_bytes, self._pool.max_bytes = value, value or 0

    def limit_on(self, device: torch.device) -> int:
        """Return the limit in bytes; where none is set, it is taken now from what is free on ``device``."""
        with self._lock:
            if self._max_bytes is None:
                tunable = 0 if self._tunable_bytes is None else self._tunable_bytes()
                self._max_bytes = self._pool.max_bytes = DefaultLimit(tunable).of(free_bytes(device))
            return self._max_bytes

    @property
    def bytes(self) -> int:
        """What narrow layers take now, with memory that is kept for the next ones."""
        return self._pool.bytes

    def dense(self, index: int, layer: nn.Module) -> LayerWeights:
        """Return the dense weights of layer ``index``, joined in place."""
        return self._dense_of(index, layer)[0]

    def get(self, index: int, layer: nn.Module, plan: LayerPlan, num_switches: int) -> LayerWeights | None:
        """Return the weights of what ``plan`` keeps of a layer, from the cache or cut now.

        None where the limit does not leave the memory: it is 0, or running answers hold all of it.
        """
        if self.limit_on(next(layer.parameters()).device) == 0:
            return None
        if torch.is_grad_enabled() and any(p.requires_grad for one in projections(layer) for p in one.parameters()):
            return cut(copied(layer), plan, num_switches, take=None)
        dense, version = self._dense_of(index, layer)
        key = (index, plan)
        with self._lock:
            entry = self._narrow.setdefault(key, _Entry())
            self._narrow.move_to_end(key)
        with entry.lock:
            if entry.weights is None or entry.version != version:
                entry.weights, entry.version = self._cut(dense, plan, num_switches, key), version
            return entry.weights

    def clear(self) -> None:
        """Forget every narrow layer, and release its memory."""
        with self._lock:
            self._narrow.clear()
        self._pool.clear()

    def _dense_of(self, index: int, layer: nn.Module) -> tuple[LayerWeights, Version]:
        with self._lock:
            entry = self._dense.setdefault(index, _Entry())
        version = _version(layer)
        with entry.lock:
            if entry.weights is None or entry.version != version:
                with torch.inference_mode(False), torch.no_grad():
                    entry.weights = joined(layer)
                entry.version = version = _version(layer)  # of the parameters' new memory
            return entry.weights, version

    def _cut(self, dense: LayerWeights, plan: LayerPlan, num_switches: int, key: Hashable) -> LayerWeights | None:
        """Cut in the pool's memory; where it is full, layers that were used longest ago give theirs back."""
        while True:
            try:
                # Ordinary tensors, whoever asks first: what inference mode makes cannot be used outside of it.
                with torch.inference_mode(False), torch.no_grad():
                    return cut(dense, plan, num_switches, self._pool.take)
            except PoolIsFull:
                if not self._evict(key):
                    return None

    def _evict(self, kept: Hashable) -> bool:
        """Forget the narrow layer that was used longest ago, but not ``kept``; return whether there was one."""
        with self._lock:
            oldest = next((key for key in self._narrow if key != kept), None)
            if oldest is not None:
                del self._narrow[oldest]
        return oldest is not None


def _version(layer: nn.Module) -> Version:
    """Return what changes when a projection's weight or bias is replaced or written to.

    Tensors made in inference mode do not count writes.
    """
    tensors = [tensor for p in projections(layer) for tensor in (p.weight, p.bias) if tensor is not None]
    return tuple((one.data_ptr(), -1 if one.is_inference() else one._version) for one in tensors)
