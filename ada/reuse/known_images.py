"""Says of which images a cache holds the features, by keys that others know: hashes of files, not of pixels."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

import torch

from ada.reuse.cache import ReuseCache, key_of_pixels

MAX_IMAGES = 256  # that are remembered


class KnownImages:
    """Remembers which pixels the last images became. cache: None where nothing is kept."""

    def __init__(self, cache: ReuseCache | None) -> None:
        self._cache = cache
        self._crops: OrderedDict[str, list[str]] = OrderedDict()  # an image's key -> the keys of its crops

    def add(self, keys: Iterable[str], pixels: Iterable[torch.Tensor] | None) -> None:
        """Take note of images that are about to be encoded: a key of each, and its crops (..., 3, S, S)."""
        if self._cache is None or pixels is None:
            return
        for key, crops in zip(keys, pixels, strict=True):
            if key in self._crops:
                self._crops.move_to_end(key)
            else:
                self._crops[key] = [key_of_pixels(crop) for crop in crops.reshape(-1, *crops.shape[-3:])]
        while len(self._crops) > MAX_IMAGES:
            self._crops.popitem(last=False)

    def keys(self) -> frozenset[str]:
        """Return the keys of the images whose features are all held now."""
        if self._cache is None:
            return frozenset()
        return frozenset(key for key, crops in self._crops.items() if all(map(self._cache.has_features, crops)))
