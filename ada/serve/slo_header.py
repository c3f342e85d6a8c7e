"""Reads the HTTP header ``x-slo-ttft-ms``: a latency budget as a TTFT in milliseconds."""

from __future__ import annotations

import math
from collections.abc import Mapping

from llava.errors import OptionError

HEADER = "x-slo-ttft-ms"
MIN_MS, MAX_MS = 0.001, 1e9  # a number outside is a mistake


def fields_of_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the request field ``latency_budget`` that the header asks for; empty where the header is missing.

    Raises ``OptionError`` for what is not a time. Whether a time can be kept is for the worker to say, which knows its
    device.
    """
    text = headers.get(HEADER)
    if text is None:
        return {}
    try:
        milliseconds = float(text)
    except ValueError:
        milliseconds = math.nan
    if not MIN_MS <= milliseconds <= MAX_MS:  # NaN is refused, too
        raise OptionError(f"the header {HEADER} is {text[:100]!r}; expected milliseconds above 0, such as 850")
    return {"latency_budget": f"{milliseconds:.3f}".rstrip("0").rstrip(".") + "ms"}
