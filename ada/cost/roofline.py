"""Estimates how long matrix products take on a device, by the roofline method.

A product takes as long as its arithmetic or as its reading and writing, whichever is longer (Williams, Waterman and
Patterson 2009); products follow one another. Norms, activations and kernel launches are left out, so the figures are a
lower bound: compare plans by them, and measure for real times.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ada.cost.hardware import Hardware
from ada.cost.products import Product


def seconds(product: Product, hardware: Hardware) -> float:
    """Return the seconds of one product: the longer of its arithmetic and its memory traffic."""
    return max(product.flops / hardware.flops, product.bytes / hardware.bandwidth)


@dataclass(frozen=True)
class Cost:
    """FLOPs, bytes moved and seconds of a part."""

    flops: float
    bytes: float
    seconds: float

    @classmethod
    def of(cls, products: Iterable[Product], hardware: Hardware) -> Cost:
        """Add up products that run one after the other."""
        kept = list(products)
        return cls(
            sum(product.flops for product in kept),
            sum(product.bytes for product in kept),
            sum(seconds(product, hardware) for product in kept),
        )


def total(costs: Iterable[Cost], shared_by: int = 1) -> Cost:
    """Return the sum of ``costs``, divided by ``shared_by``."""
    kept, count = list(costs), max(1, shared_by)
    return Cost(*(sum(getattr(cost, name) for cost in kept) / count for name in ("flops", "bytes", "seconds")))
