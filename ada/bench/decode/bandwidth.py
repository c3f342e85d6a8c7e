"""Measures how fast a device reads its memory: what no decode step can beat."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import psutil
import torch

from ada.bench.device import seconds_of

MAX_BYTES = {"cpu": 512 << 20, "cuda": 4 << 30}  # far more than any cache holds
ROUNDS = 9


def memory_bandwidth(device: torch.device, rounds: int = ROUNDS, num_bytes: int | None = None) -> float:
    """Return bytes per second: of reading (the sum of a tensor) or of copying (both sides), whichever is higher.

    Medians of ``rounds`` after one that warms up. num_bytes: of the tensor, by default what no cache holds.
    """
    source = torch.ones((num_bytes or _bytes_for(device)) // 4, device=device)
    target = torch.empty_like(source)
    ways: list[tuple[Callable[[], Any], int]] = [
        (lambda: source.sum(), source.nbytes),
        (lambda: target.copy_(source), 2 * source.nbytes),
    ]
    rates: list[list[float]] = [[] for _ in ways]
    for number in range(rounds + 1):
        for way_rates, (way, moved) in zip(rates, ways, strict=True):
            seconds = seconds_of(way, device)
            if number:
                way_rates.append(moved / seconds)
    return max(map(statistics.median, rates))


def _bytes_for(device: torch.device) -> int:
    free = psutil.virtual_memory().available if device.type != "cuda" else torch.cuda.mem_get_info(device)[0]
    return int(min(MAX_BYTES.get(device.type, MAX_BYTES["cpu"]), free // 8))
