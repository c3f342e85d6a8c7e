"""The header ``x-slo-ttft-ms``: a latency budget as milliseconds to the first token."""

from __future__ import annotations

import math
from collections.abc import Mapping

from llava.errors import OptionError

HEADER = "x-slo-ttft-ms"
LEAST, MOST = 0.001, 1e9  # milliseconds; beyond them a number is a mistake


def fields_of_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """``latency_budget`` in milliseconds, where the header is there. Raises ``OptionError`` for what is no time.

    Whether a time can be promised is for the worker to say, which knows its device.
    """
    text = headers.get(HEADER)
    if text is None:
        return {}
    try:
        milliseconds = float(text)
    except ValueError:
        milliseconds = math.nan
    if not LEAST <= milliseconds <= MOST:  # not a number is refused, too
        raise OptionError(f"the header {HEADER} is {text[:100]!r}; expected milliseconds above 0, such as 850")
    return {"latency_budget": f"{milliseconds:.3f}".rstrip("0").rstrip(".") + "ms"}
