"""Offers Triton's language to the kernels, with types that a checker knows."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

import triton  # type: ignore[import-not-found,import-untyped,unused-ignore]
import triton.language as tl  # type: ignore[import-not-found,import-untyped,unused-ignore]

__all__ = ["INTERPRETED", "Kernel", "Pointer", "Tile", "kernel", "tl"]

Pointer: TypeAlias = tl.tensor
"""A tensor as a kernel sees it: where its elements begin. None where there is none."""

Tile: TypeAlias = tl.tensor
"""A block of values in a program's registers."""


class Kernel(Protocol):
    """A function in Triton's language."""

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        """Return what launches it in a grid of programs."""

    def __call__(self, *args: Tile) -> Tile:
        """Call it within another kernel."""


kernel: Callable[[Callable[..., Any]], Kernel] = triton.jit

INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")
"""Whether kernels run under Triton's interpreter, whose products do not know bfloat16."""
