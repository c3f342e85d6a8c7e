"""Keeps the caches of layers that read fewer columns of a prompt as wide as those of the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from llava.errors import OptionError

if TYPE_CHECKING:
    from ada.execution.late_tokens import Slices


def check_growing(cache: Any) -> None:
    """Raise OptionError for a cache whose layers do not grow by what they read, as a static or a quantized one."""
    kinds = {type(layer) for layer in cache.layers} if cache is not None else set()
    for kind in kinds - {DynamicLayer, DynamicSlidingWindowLayer}:
        raise OptionError(
            f"the key-value cache has layers of {kind.__name__}, in which no columns can be left out; expected "
            "transformers' DynamicCache: leave cache_implementation out, or give --image-tokens one amount and a "
            "selector that chooses before the decoder"
        )


def widen(cached: Any, slices: Slices) -> None:
    """Give one layer's cache, filled with the columns of ``slices``, the columns that were left out, as zeros.

    A sliding window's cache holds the columns before the next one that its window sees, and counts all.
    """
    cached.keys, cached.values = (slices.widened(part) for part in (cached.keys, cached.values))
    if isinstance(cached, DynamicSlidingWindowLayer):
        cached.cumulative_length += slices.stays.shape[1] - slices.real.shape[1]
        if not getattr(cached, "record_past", False):
            first = 1 - cached.sliding_window
            cached.keys, cached.values = cached.keys[:, :, first:], cached.values[:, :, first:]
