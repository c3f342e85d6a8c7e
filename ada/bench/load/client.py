"""Sends requests to a controller, and records what became of each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from llava.serve.protocol.framing import FrameReader, parse_chunk
from llava.serve.protocol.http_client import new_client
from llava.serve.protocol.schemas import OK

TIMEOUT_S = 600.0
SAMPLE_S = 0.1  # between two looks at the worker's metrics
WATCHED = ("adallava:budget_multiplier", "adallava:num_requests_waiting", "adallava:num_requests_running")


@dataclass(frozen=True)
class Result:
    """What became of one request.

    due_s: when it was due to be sent, in seconds on the load's clock; first_s, total_s: seconds from then on to the
    first token and to the end. status 200 without a failure is an answer. granted: the budget that the worker reports.
    """

    index: int
    due_s: float
    status: int
    first_s: float | None = None
    total_s: float | None = None
    text: str = ""
    tokens: int = 0
    granted: float | None = None
    failure: str | None = None

    @property
    def answered(self) -> bool:
        """Whether a complete answer came."""
        return self.status == 200 and self.failure is None


class Load:
    """Sends requests to the controller at ``address``."""

    def __init__(self, address: str) -> None:
        self.url = f"{address}/worker_generate_stream"

    async def some_at_a_time(self, bodies: Sequence[dict[str, Any]], at_once: int) -> list[Result]:
        """Send all requests from ``at_once`` clients; each sends its next one when the last is answered."""
        indices = iter(range(len(bodies)))
        start, results = time.perf_counter(), {}

        async def ask_on(client: httpx.AsyncClient) -> None:
            for index in indices:  # shared by all clients
                results[index] = await self._ask(client, bodies[index], index, start, time.perf_counter() - start)

        async with new_client() as client:
            await asyncio.gather(*(ask_on(client) for _ in range(at_once)))
        return [results[index] for index in range(len(bodies))]

    async def at_times(self, bodies: Sequence[dict[str, Any]], times: Sequence[float]) -> list[Result]:
        """Send each request at its time in seconds, whether the ones before it were answered or not.

        One that is sent late is counted from when it was due, as its user waits from then on.
        """

        async def ask_then(client: httpx.AsyncClient, index: int, start: float) -> Result:
            await asyncio.sleep(max(0.0, start + times[index] - time.perf_counter()))
            return await self._ask(client, bodies[index], index, start, times[index])

        async with new_client() as client:
            start = time.perf_counter()  # making a client takes time that is no user's
            return await asyncio.gather(*(ask_then(client, index, start) for index in range(len(bodies))))

    async def _ask(
        self, client: httpx.AsyncClient, body: dict[str, Any], index: int, start: float, due_s: float
    ) -> Result:
        try:
            async with client.stream("POST", self.url, json=body, timeout=TIMEOUT_S) as reply:
                if reply.status_code != 200:
                    await reply.aread()
                    return Result(index, due_s, reply.status_code, failure=reply.json()["text"])
                return await _read(reply, body["prompt"], index, start, due_s)
        except (httpx.HTTPError, ValueError, KeyError) as error:  # lost: no answer, and no reason from the server
            return Result(index, due_s, 0, failure=f"{type(error).__name__}: {error}")


async def _read(reply: httpx.Response, prompt: str, index: int, start: float, due_s: float) -> Result:
    first_s: float | None = None
    last: dict[str, Any] = {}
    reader = FrameReader()
    async for data in reply.aiter_bytes():
        for frame in reader.feed(data):
            last = parse_chunk(frame)
            if first_s is None and last["error_code"] == OK:
                first_s = time.perf_counter() - start - due_s
    if last.get("error_code") != OK or "usage" not in last:
        return Result(index, due_s, 200, first_s, failure=str(last.get("text", "the answer has no end")))
    return Result(
        index,
        due_s,
        200,
        first_s,
        time.perf_counter() - start - due_s,
        last["text"][len(prompt) :],
        last["usage"]["completion_tokens"],
        last.get("latency_budget", {}).get("granted"),
    )


@asynccontextmanager
async def watched(worker: str) -> AsyncIterator[list[dict[str, float]]]:
    """Sample the worker's gauges while inside: a growing list of values by short name, with ``at_s`` in seconds."""
    samples: list[dict[str, float]] = []
    start = time.perf_counter()

    async def look(client: httpx.AsyncClient) -> None:
        while True:
            text = (await client.get(f"{worker}/metrics", timeout=TIMEOUT_S)).text
            sample = {"at_s": time.perf_counter() - start}
            for family in text_string_to_metric_families(text):
                if family.name in WATCHED:
                    sample[family.name.partition(":")[2]] = family.samples[0].value
            samples.append(sample)
            await asyncio.sleep(SAMPLE_S)

    async with new_client() as client:
        looking = asyncio.create_task(look(client))
        try:
            yield samples
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)
