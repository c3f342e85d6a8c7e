"""Draws requests with promises: times in multiples of what the server takes for a request that comes alone."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ada.bench.load.workload import LoadRequest

KINDS = (("ttft",), ("total",), ("ttft", "total"), ("ttft", "tpot"), ())
"""The clauses of a request's promise, in turn; some requests have none."""


@dataclass(frozen=True)
class PromisedRequest:
    """A request of the chat API. promised: milliseconds by clause; without any, the server's default counts."""

    asked: LoadRequest
    promised: Mapping[str, float]
    min_tokens: int = 0

    def body(self, model: str, max_tokens: int) -> dict[str, Any]:
        """Return the request, greedy and streamed."""
        content: list[dict[str, Any]] = [{"type": "text", "text": self.asked.words}]
        if self.asked.image is not None:
            url = {"url": f"data:image/png;base64,{self.asked.image}"}
            content.insert(0, {"type": "image_url", "image_url": url})
        fields: dict[str, Any] = {
            "model": model,
            "messages": [{"role": "user", "content": content}],
            "temperature": 0,
            "max_tokens": max_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if self.min_tokens:
            fields["min_tokens"] = self.min_tokens
        if self.promised:
            fields["latency_budget"] = ",".join(f"{name}={allowed:.2f}ms" for name, allowed in self.promised.items())
        return fields


def promised_requests(
    asked: Sequence[LoadRequest], alone: Mapping[str, float], slack: tuple[float, float], seed: int, long: int
) -> Iterator[PromisedRequest]:
    """Promise each request one kind of clauses, in turn.

    alone: milliseconds by clause of a request that comes alone; slack: the multiples of them between which promises are
    drawn, evenly in their logarithm. Half of the answers have ``long`` tokens or more.
    """
    rng = random.Random(seed)
    for number, request in enumerate(asked):
        factor = math.exp(rng.uniform(*map(math.log, slack)))
        promised = {name: factor * alone[name] for name in KINDS[number % len(KINDS)]}
        yield PromisedRequest(request, promised, long if rng.random() < 0.5 else 0)
