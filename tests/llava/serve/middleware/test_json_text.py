"""The depth limit of request bodies, against walking the parsed value."""

import json
import random

import pytest

from llava.serve.middleware.json_text import check_depth
from llava.serve.protocol.errors import RequestFailure


def slow_depth(value) -> int:
    if isinstance(value, (list, dict)):
        return 1 + max((slow_depth(part) for part in (value.values() if isinstance(value, dict) else value)), default=0)
    return 0


def test_check_depth_agrees_with_walking_the_parsed_value() -> None:
    rng = random.Random(1)

    def value(depth: int):
        kind = rng.randrange(5 if depth < 6 else 2)
        if kind < 2:
            return rng.choice([1, None, 'a"[', "\\", '\\"{', "]]]", "\\\\[", "é{"])
        parts = [value(depth + 1) for _ in range(rng.randrange(3))]
        return parts if kind == 2 else {rng.choice(['k"', "[", "\\"]) + str(n): part for n, part in enumerate(parts)}

    for _ in range(500):
        sample = value(0)
        body, depth = json.dumps(sample).encode(), slow_depth(sample)
        check_depth(body, depth)
        if depth:
            with pytest.raises(RequestFailure):
                check_depth(body, depth - 1)
