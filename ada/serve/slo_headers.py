"""Reads llm-d's HTTP headers for latency, such as ``x-llm-d-slo-ttft-ms``: a latency budget in milliseconds."""

from __future__ import annotations

import math
from collections.abc import Mapping

from llava.errors import OptionError

HEADERS = {
    "x-llm-d-slo-ttft-ms": "ttft",
    "x-slo-ttft-ms": "ttft",
    "x-llm-d-slo-tpot-ms": "tpot",
    "x-slo-tpot-ms": "tpot",
}  # llm-d's; those without its name are the older ones
MIN_MS, MAX_MS = 0.001, 1e9  # a number outside is a mistake


def fields_of_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the request field ``latency_budget`` that the headers ask for; empty where there are none.

    Raises ``OptionError`` for what is not a time, and for two headers that say different things. Whether a time can be
    kept is for the worker to say, which knows its device.
    """
    clauses: dict[str, str] = {}
    for name, clause in HEADERS.items():
        text = headers.get(name)
        if text is None:
            continue
        time = _milliseconds(name, text)
        if clauses.setdefault(clause, time) != time:
            raise OptionError(f"the header {name} asks for {time}, and another for {clauses[clause]}; give one of them")
    if not clauses:
        return {}
    if [*clauses] == ["ttft"]:
        return {"latency_budget": clauses["ttft"]}
    return {"latency_budget": ",".join(f"{clause}={time}" for clause, time in clauses.items())}


def _milliseconds(name: str, text: str) -> str:
    """Return a header's value as a time with its unit."""
    try:
        milliseconds = float(text)
    except ValueError:
        milliseconds = math.nan
    if not MIN_MS <= milliseconds <= MAX_MS:  # NaN is refused, too
        raise OptionError(f"the header {name} is {text[:100]!r}; expected milliseconds above 0, such as 850")
    return f"{milliseconds:.3f}".rstrip("0").rstrip(".") + "ms"
