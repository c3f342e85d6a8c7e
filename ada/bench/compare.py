"""Times two ways of doing the same, interleaved in one process."""

from __future__ import annotations

import random
import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import torch

from ada.bench.device import seconds_of

Way = Callable[[], Any]


CPU = torch.device("cpu")


def compare(
    ways: Mapping[str, Way], rounds: int, repeats: int, rng: random.Random, device: torch.device = CPU
) -> dict[str, float]:
    """Return median milliseconds of each way, as ``<name>_ms``, and how many ``times_faster`` the first one is.

    ways: two of them, the second being the baseline. Each round calls both in random order, ``repeats`` times each;
    ``times_faster`` is the median ratio of a round. One more round comes first, to warm up. device: what is waited for.
    """
    seconds: dict[str, list[float]] = defaultdict(list)
    for number in range(rounds + 1):
        for name in rng.sample(sorted(ways), len(ways)):
            spent = seconds_of(ways[name], device, repeats)
            if number:
                seconds[name].append(spent)
    candidate, baseline = (seconds[name] for name in ways)
    ratios = [slow / fast for fast, slow in zip(candidate, baseline, strict=True)]
    medians = {f"{name}_ms": round(1000 * statistics.median(seconds[name]), 2) for name in ways}
    return {**medians, "times_faster": round(statistics.median(ratios), 3)}
