"""Returns freed memory to the system."""

from __future__ import annotations

import ctypes
import functools
from typing import Any


def trim_heap() -> None:
    """Call glibc's ``malloc_trim``, which gives freed pages of every heap back; do nothing with other C libraries."""
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@functools.cache
def _malloc_trim() -> Any:
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
