"""Sends the requests of a hostile load as well-behaved, slow and leaving clients, and records what became of each."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import anyio
import httpx

from ada.bench.hostile.workload import CANCELLED, LATE_BODY, LATE_HEAD, NO_CHAT, NOT_JSON, SLOW_HEAD, HostileRequest
from llava.serve.protocol.http_client import new_client

PATH = "/v1/chat/completions"
TIMEOUT_S = 600.0
LOST = 0  # the status of a request that the server never answered
PIECE_PAUSE_S = 0.1  # between two pieces of a slow head


@dataclass(frozen=True)
class End:
    """What became of one request.

    status: of the reply, ``LOST`` without one, None where the client left. due_s: when it was due to be sent, in
    seconds from the start; total_s: seconds from then on to the end of the reply. failure: code of an event of failure
    in a stream.
    """

    request: HostileRequest
    status: int | None
    due_s: float
    total_s: float
    failure: str | None = None

    @property
    def answered(self) -> bool:
        """Whether a complete answer came."""
        return self.status == 200 and self.failure is None


class HostileClients:
    """Sends requests to the API at ``address``, which serves ``model``."""

    def __init__(self, address: str, model: str, max_new_tokens: int) -> None:
        self.address, self.model, self.max_new_tokens = address, model, max_new_tokens

    async def send(
        self,
        small: Sequence[HostileRequest],
        times: Sequence[float],
        hostile: Sequence[HostileRequest] = (),
        hostile_clients: int = 1,
    ) -> list[End]:
        """Send each small request at its time in seconds, whether the ones before have ended or not; return all ends.

        So a time in which the server stalls delays all that are due in it; clients that wait for their answers would
        send no more than one each. The hostile ones come meanwhile from ``hostile_clients`` clients, which do wait.
        """
        waiting, ends = iter(hostile), []

        async def end_of(client: httpx.AsyncClient, request: HostileRequest, start: float, due_s: float) -> None:
            try:
                status, failure = await self._send(client, request)
            except (httpx.HTTPError, OSError, ValueError) as error:
                status, failure = LOST, f"{type(error).__name__}: {error}"
            ends.append(End(request, status, due_s, time.perf_counter() - start - due_s, failure))

        async def send_at(client: httpx.AsyncClient, request: HostileRequest, start: float, due_s: float) -> None:
            await asyncio.sleep(max(0.0, start + due_s - time.perf_counter()))
            await end_of(client, request, start, due_s)

        async def send_on(client: httpx.AsyncClient, start: float) -> None:
            for request in waiting:  # shared by all clients
                await end_of(client, request, start, time.perf_counter() - start)

        async with new_client() as client:
            start = time.perf_counter()
            at_times = [send_at(client, request, start, at) for request, at in zip(small, times, strict=True)]
            await asyncio.gather(*at_times, *(send_on(client, start) for _ in range(hostile_clients)))
        return ends

    async def _send(self, client: httpx.AsyncClient, request: HostileRequest) -> tuple[int | None, str | None]:
        body = request.body(self.model, self.max_new_tokens)
        if request.kind == CANCELLED:
            return await self._leave(client, body, request.leave_after_s), None
        if request.kind in (LATE_HEAD, LATE_BODY, SLOW_HEAD):
            return await self._send_slowly(request.kind, json.dumps(body).encode()), None
        if request.kind == NOT_JSON:
            reply = await client.post(self.address + PATH, content=b"{", timeout=TIMEOUT_S)
            return reply.status_code, None
        if request.kind == NO_CHAT:
            body["messages"] = []
        reply = await client.post(self.address + PATH, json=body, timeout=TIMEOUT_S)
        return reply.status_code, _failure_in(reply.text) if request.stream else None

    async def _leave(self, client: httpx.AsyncClient, body: dict[str, object], after_s: float) -> int | None:
        """Send a request, and disconnect some seconds after it was sent; return the status if all had come by then."""
        content, sent = json.dumps(body).encode(), asyncio.Event()

        async def pieces() -> AsyncIterator[bytes]:
            yield content
            sent.set()

        async def ask() -> int:
            headers = {"Content-Type": "application/json", "Content-Length": str(len(content))}
            reply = await client.post(self.address + PATH, content=pieces(), headers=headers, timeout=TIMEOUT_S)
            return reply.status_code

        asking = asyncio.create_task(ask())
        await asyncio.wait([asking, asyncio.create_task(sent.wait())], return_when=asyncio.FIRST_COMPLETED)
        done, _ = await asyncio.wait([asking], timeout=after_s)
        if done:
            return await asking
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking
        return None

    async def _send_slowly(self, kind: str, body: bytes) -> int:
        """Send a request piece by piece, or not to its end; return the status of the reply."""
        host, port = urlsplit(self.address).hostname, urlsplit(self.address).port
        reader, writer = await asyncio.open_connection(host, port)
        head = f"POST {PATH} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        head += f"Connection: close\r\nContent-Length: {len(body)}\r\n"
        try:
            for line in head.splitlines(keepends=True):
                writer.write(line.encode())
                await asyncio.sleep(PIECE_PAUSE_S if kind != LATE_BODY else 0)
            if kind != LATE_HEAD:
                writer.write(b"\r\n" + (body[:-1] if kind == LATE_BODY else body))
            await writer.drain()
            with anyio.fail_after(TIMEOUT_S):
                status_line = await reader.readline()
                await reader.read()
            return int(status_line.split()[1]) if status_line else LOST
        finally:
            writer.close()


def _failure_in(events: str) -> str | None:
    """Return the code of the failure that a stream of events reports; None where it has none."""
    for line in events.splitlines():
        if line.startswith('data: {"error"'):
            return str(json.loads(line.removeprefix("data: "))["error"]["code"])
    return None if events.rstrip().endswith("[DONE]") or events.startswith("{") else "no end"
