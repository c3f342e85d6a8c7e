"""Asks an OpenAI-style server, several requests at a time, and measures each answer's clauses by the client's clock."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from ada.bench.deadline.client import refuses
from ada.bench.promises.requests import PromisedRequest
from ada.latency.pacer import OUT_OF_TIME

TIMEOUT_S = 120.0
DATA = "data: "
REFUSALS = ("promise_out_of_reach", "promise_not_possible")  # codes of a stream that ends before it has begun


@dataclass(frozen=True)
class Outcome:
    """What became of a request.

    measured_ms: by clause, from when it was sent; None where no complete answer came. said_ms: what the server itself
    measured of the promised clauses, where it says so. status: of the reply, 0 where it was lost; failure: its code.
    share: of the units that ran, where the server says so; cut: whether it ended the answer as its time was over;
    begun: whether any of an answer came.
    """

    request: PromisedRequest
    measured_ms: dict[str, float] | None
    said_ms: dict[str, float]
    status: int = 200
    failure: str | None = None
    share: float | None = None
    cut: bool = False
    begun: bool = False

    @property
    def kept(self) -> bool:
        """Whether an answer came within everything that was promised, by the client's clock."""
        return self.measured_ms is not None and self._within(self.measured_ms)

    @property
    def said_kept(self) -> bool:
        """Whether an answer came within everything that was promised, by the server's clock."""
        return self.measured_ms is not None and self._within({**self.measured_ms, **self.said_ms})

    @property
    def refused(self) -> bool:
        """Whether the server said that it will not answer, before it began to; any other failure is a loss."""
        said = refuses(self.status) or self.failure in REFUSALS
        return self.measured_ms is None and not self.begun and said

    def _within(self, measured: dict[str, float]) -> bool:
        return all(measured[name] <= allowed for name, allowed in self.request.promised.items())


async def ask_all(url: str, requests: Sequence[PromisedRequest], bodies: Sequence[Any], at_once: int) -> list[Outcome]:
    """Send all from ``at_once`` clients to the API at ``url``; each sends its next one when the last is answered."""
    waiting = iter(zip(requests, bodies, strict=True))
    outcomes: list[Outcome] = []

    async def ask_on(client: httpx.AsyncClient) -> None:
        for request, body in waiting:  # shared by all clients
            outcomes.append(await _ask(client, request, body))

    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S, limits=limits, trust_env=False) as client:
        await asyncio.gather(*(ask_on(client) for _ in range(at_once)))
    return outcomes


async def _ask(client: httpx.AsyncClient, request: PromisedRequest, body: Any) -> Outcome:
    start = time.perf_counter()
    try:
        async with client.stream("POST", "/chat/completions", json=body) as reply:
            if reply.status_code != 200:
                error = json.loads(await reply.aread()).get("error", {})
                return Outcome(request, None, {}, reply.status_code, error.get("code"))
            return await _read(request, reply, start)
    except (httpx.HTTPError, ValueError) as error:
        return Outcome(request, None, {}, 0, type(error).__name__)


async def _read(request: PromisedRequest, reply: httpx.Response, start: float) -> Outcome:
    """Measure a streamed answer. Raises ValueError for a stream without an end."""
    first_s, last_s, tokens, said, cut = None, 0.0, 0, dict[str, Any](), False
    async for chunk in _chunks(reply):
        if "error" in chunk:
            code = chunk["error"].get("code")
            return Outcome(request, None, {}, reply.status_code, code, begun=first_s is not None)
        cut |= any(choice.get("stop_reason") == OUT_OF_TIME for choice in chunk.get("choices", ()))
        if any(choice["delta"].get("content") for choice in chunk.get("choices", ())):
            last_s = time.perf_counter() - start
            first_s = first_s or last_s
        if chunk.get("usage"):
            tokens = chunk["usage"]["completion_tokens"]
        said = chunk.get("llava", said)
    total_s = time.perf_counter() - start
    first_s = first_s or total_s
    token_s = (last_s - first_s) / (tokens - 1) if tokens > 1 else 0.0
    measured = {"ttft": 1000 * first_s, "tpot": 1000 * token_s, "total": 1000 * total_s}
    budget = said.get("latency_budget", {})
    clauses = {one["name"]: one["measured_ms"] for one in budget.get("clauses", ()) if one["measured_ms"] is not None}
    return Outcome(request, measured, clauses, reply.status_code, None, budget.get("granted"), cut, begun=True)


async def _chunks(reply: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    """Yield the stream's chunks. Raises ValueError where it does not end as the API's streams do."""
    async for line in reply.aiter_lines():
        if line == f"{DATA}[DONE]":
            return
        if line.startswith(DATA):
            yield json.loads(line.removeprefix(DATA))
    raise ValueError("the stream has no end")
