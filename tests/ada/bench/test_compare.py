"""The timing of two ways."""

import random

from ada.bench.compare import compare


def test_compare_calls_both_ways_in_every_round() -> None:
    calls = []
    found = compare({"new": lambda: calls.append("new"), "old": lambda: calls.append("old")}, 3, 2, random.Random(0))
    assert calls.count("new") == calls.count("old") == (3 + 1) * 2
    assert set(found) == {"new_ms", "old_ms", "times_faster"} and found["times_faster"] > 0
