"""Forwards a request to a worker and its answer back in complete frames; reports a worker that is lost in between."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx

from llava.serve.middleware.request_end import current_end
from llava.serve.middleware.request_ids import HEADER
from llava.serve.protocol.errors import RequestFailure, error_status, failure_in_stream, failure_of_reply, no_worker
from llava.serve.protocol.framing import FrameReader, parse_chunk
from llava.serve.protocol.http_client import BodyOnce
from llava.serve.protocol.schemas import END, OK, WORKER_UNREACHABLE, WorkerStatus
from llava.serve.routing.worker_registry import WorkerRegistry

log = logging.getLogger(__name__)

STATUS_TIMEOUT_S = 5.0
MAX_FRAME_BYTES = 16 * 1024 * 1024  # a worker's answer is text
TRY_ANOTHER = (429, 503)  # a worker that is full or shutting down: the next one may take the request


async def ask_status(client: httpx.AsyncClient, address: str) -> WorkerStatus | None:
    """Ask a worker for its status; return None where it gives none."""
    try:
        reply = await client.post(f"{address}/worker_get_status", timeout=STATUS_TIMEOUT_S)
        reply.raise_for_status()
        return WorkerStatus.model_validate_json(reply.content)
    except (httpx.HTTPError, ValueError) as error:
        log.warning("worker %s gives no status: %s", address, error or type(error).__name__)
        return None


@dataclass
class Relay:
    """Sends requests to workers: each worker of a model is tried once, until one takes the request.

    ``worker_timeout_s``: maximum wait for the next piece of a worker's answer, in seconds.
    """

    registry: WorkerRegistry
    client: httpx.AsyncClient
    worker_timeout_s: float

    async def open(self, model: str, body: bytes, request_id: str) -> tuple[str, httpx.Response]:
        """Send a request; return the worker that took it, and its reply, not read yet. The caller closes the reply.

        Raises RequestFailure: no worker, none that can be reached, or the worker's own refusal.
        """
        tried: list[str] = []
        refusal: RequestFailure | None = None
        while (address := self.registry.choose(model, exclude=tried)) is not None:
            tried.append(address)
            try:
                response = await self._send(address, body, request_id)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                self.registry.forget(address, f"cannot be reached: {error or type(error).__name__}")
                continue
            except httpx.HTTPError as error:  # it may be working on the request: not sent again
                await self._forget_if_dead(address)
                raise _lost(address, error) from error
            if response.status_code == 200:
                return address, response
            refusal = await _refusal(address, response)
            if refusal.status not in TRY_ANOTHER:
                raise refusal
        raise refusal or self._no_worker(model, tried)

    async def _send(self, address: str, body: bytes, request_id: str) -> httpx.Response:
        timeout = httpx.Timeout(self.worker_timeout_s, connect=STATUS_TIMEOUT_S)
        content = BodyOnce(body)
        request = self.client.build_request(
            "POST",
            f"{address}/worker_generate_stream",
            content=content,
            headers={**content.headers, HEADER: request_id},
            timeout=timeout,
        )
        return await self.client.send(request, stream=True)

    def _no_worker(self, model: str, tried: list[str]) -> RequestFailure:
        if tried:
            message = f"no worker for model {model!r} can be reached; tried {', '.join(tried)}. Try again later"
            return RequestFailure(502, "worker_unreachable", message, WORKER_UNREACHABLE)
        return no_worker(model, self.registry.models())

    async def frames(self, address: str, response: httpx.Response, request_id: str) -> AsyncIterator[bytes]:
        """Yield the frames of an answer, each with its zero byte; the last one is a failure where the worker is lost.

        The caller closes ``response``.
        """
        reader, last = FrameReader(), b""
        try:
            async for data in response.aiter_bytes():
                for last in reader.feed(data):
                    yield last + END
                if len(reader.remainder) > MAX_FRAME_BYTES:
                    raise httpx.ReadError(f"a frame of its answer is longer than {MAX_FRAME_BYTES:,} bytes")
            if reader.remainder:
                raise httpx.RemoteProtocolError("the answer ends within a frame")
            _record_end(last)
        except httpx.HTTPError as error:
            failure = _lost(address, error)
            current_end().fail(failure)
            yield failure.chunk(request_id)
            await self._forget_if_dead(address)

    async def _forget_if_dead(self, address: str) -> None:
        """Forget a worker that has just failed, unless it still gives its status."""
        if await ask_status(self.client, address) is None:
            self.registry.forget(address, "lost in the middle of a request")


def _record_end(last: bytes) -> None:
    """Record the failure that an answer's last frame reports, if it does, as the request's end."""
    with contextlib.suppress(ValueError):  # not JSON: the client sees that itself
        chunk = parse_chunk(last)
        if chunk.get("error_code", OK) != OK:
            current_end().fail(failure_in_stream(chunk))


def _lost(address: str, error: httpx.HTTPError) -> RequestFailure:
    what = "did not respond in time" if isinstance(error, httpx.TimeoutException) else "was lost"
    message = f"the worker at {address} {what} ({type(error).__name__}); please ask again"
    return RequestFailure(502, "worker_lost", message, WORKER_UNREACHABLE)


async def _refusal(address: str, response: httpx.Response) -> RequestFailure:
    """Read a worker's own failure, to pass it on."""
    try:
        return failure_of_reply(response.status_code, response.headers, await response.aread())
    except (httpx.HTTPError, ValueError):
        message = f"the worker at {address} answered with status {response.status_code} and no reason"
        return RequestFailure(error_status(response.status_code), "worker_lost", message, WORKER_UNREACHABLE)
    finally:
        await response.aclose()
