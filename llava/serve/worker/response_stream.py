"""The reply to one request: its chunks as tokens come, its time limits, its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from typing import Any

import anyio
import torch
from pydantic import ValidationError

from llava.errors import LlavaError
from llava.serve.engine.policy import ServingPolicy
from llava.serve.engine.request import ABORT, EngineRequest, Finished, GenerationRequest
from llava.serve.engine.request_queue import RequestQueue
from llava.serve.middleware.request_end import current_end, is_recording
from llava.serve.protocol.errors import RequestFailure, invalid_body
from llava.serve.protocol.schemas import chunk
from llava.serve.worker.request_limits import RequestLimits

log = logging.getLogger(__name__)

CLIENT_DISCONNECTED, TIMEOUT, SHUTDOWN = "client_disconnected", "timeout", "shutting_down"  # why one is cancelled
POSITION_S = 0.5  # how often a client learns of its position in the queue


class ResponseStream:
    """The chunks of one answer.

    Call ``close`` at the end, whether all chunks were read or none; it frees the request's slot.
    """

    def __init__(
        self, generation: GenerationRequest, request_id: str, queue: RequestQueue, limits: RequestLimits, interval: int
    ) -> None:
        self.limits = limits
        self.interval = interval
        self._queue = queue
        self._woken = asyncio.Event()
        loop = asyncio.get_running_loop()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody reads any more
                loop.call_soon_threadsafe(self._woken.set)

        self.request = EngineRequest(generation, request_id, wake)

    async def chunks(self, policy: ServingPolicy) -> AsyncIterator[bytes]:
        """Yield ``{"text", "error_code"}`` for every ``interval`` tokens, then one with the figures or the error.

        Where the client follows its progress, there are chunks with what is new of it, before the first token too; and
        one every ``POSITION_S`` while the request waits, which fails where the client has left.
        """
        request, prompt, shown, tokens = self.request, self.request.generation.echo, "", 0
        said: dict[str, Any] = {}
        try:
            while request.outcome is None:
                progress = self._progress()
                news = {name: value for name, value in progress.items() if said.get(name) != value}
                grown = request.tokens - tokens >= self.interval and request.text != shown
                if grown:
                    shown, tokens = request.text, request.tokens
                if grown or news or (progress and request.began is None):
                    said = progress
                    yield chunk(prompt + shown, **news)
                await self._wait_for_change()
            yield self._last_chunk(policy)
        except Exception as error:  # noqa: BLE001 - every error reaches the client; unexpected ones also the log
            yield recorded_failure(error, request.request_id).chunk(request.request_id)

    def _progress(self) -> dict[str, Any]:
        """Return what a client that follows its request learns before the end."""
        request = self.request
        if not request.generation.fields.get("progress"):
            return {}
        position = self._queue.position(request) if request.began is None else 0
        fields = {"queue_position": position, **request.notes}
        if request.first_token is not None:
            fields["time_to_first_token_ms"] = round((request.first_token - request.arrived) * 1000, 3)
        return fields

    async def _wait_for_change(self) -> None:
        """Wait until the engine has done something, or the queue may have moved on.

        Raises RequestFailure where that takes too long.
        """
        request, limits = self.request, self.limits
        waits = request.began is None
        limit_s = limits.queue_timeout_s if waits else limits.generation_timeout_s
        deadline = (request.arrived if request.began is None else request.began) + limit_s
        wait_s = deadline - time.perf_counter()
        if waits and request.generation.fields.get("progress"):
            wait_s = min(wait_s, POSITION_S)
        with anyio.move_on_after(max(0.0, wait_s)):
            await self._woken.wait()
        self._woken.clear()
        if request.outcome is not None or time.perf_counter() < deadline or waits != (request.began is None):
            return
        request.cancel(TIMEOUT)
        if waits:
            self._queue.drop(request)
            raise RequestFailure(503, "timeout", f"the request waited more than {limit_s:g} s; please ask again later")
        raise RequestFailure(504, "timeout", f"the answer took more than {limit_s:g} s and was stopped")

    def _last_chunk(self, policy: ServingPolicy) -> bytes:
        request, outcome = self.request, self.request.outcome
        if isinstance(outcome, BaseException):
            raise policy.failure(request.generation.fields, outcome)
        assert outcome is not None
        if outcome.finish_reason == ABORT:
            raise RequestFailure(503, SHUTDOWN, "the worker is shutting down and stopped the answer; please ask again")
        usage = {
            "prompt_tokens": request.generation.prompt_tokens,
            "completion_tokens": len(outcome.answer.token_ids),
        }
        fields: dict[str, Any] = {
            "request_id": request.request_id,
            "finish_reason": outcome.finish_reason,
            "usage": {**usage, "total_tokens": sum(usage.values())},
            "queue_ms": round(request.queue_s * 1000, 3),
            "time_to_first_token_ms": round(request.first_token_s(outcome) * 1000, 3),
            "token_ms": [round(ms, 3) for ms in outcome.answer.token_ms],
            "total_ms": round(request.total_s * 1000, 3),
            "mean_batch": round(outcome.mean_batch_size, 2),
        }
        if notes := request.generation.images.notes:
            fields["image_notes"] = list(notes)
        reply = policy.reply(request.generation.fields, outcome)
        last = chunk(request.generation.echo + outcome.text, **fields, **reply)
        current_end().finish(outcome.finish_reason, describe(request, outcome))
        return last

    def close(self) -> None:
        """Stop the request where it is not finished, as nobody reads on."""
        if self.request.outcome is None and not self.request.cancelled_event.is_set():
            self.request.cancel(CLIENT_DISCONNECTED)
            self._queue.drop(self.request)


def recorded_failure(error: BaseException, request_id: str, body: Any = None) -> RequestFailure:
    """Return ``failure_of`` an error, and record it as the request's end, with the traceback of an unexpected one.

    Where no server records ends, as on Ray, the unexpected one is logged here.
    """
    failure = failure_of(error, body)
    unexpected = error if failure.reason == "internal" else None
    if unexpected is not None and not is_recording():
        log.error("request %s: %s", request_id, failure, exc_info=unexpected)
    current_end().fail(failure, unexpected)
    return failure


def failure_of(error: BaseException, body: Any = None) -> RequestFailure:
    """Return the failure that a client gets for an error; ``body``: what it sent, where that has not been checked."""
    if isinstance(error, RequestFailure):
        return error
    if isinstance(error, ValidationError):
        return invalid_body(error, body)
    if isinstance(error, LlavaError):
        return RequestFailure(400, "bad_request", str(error))
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        message = "the worker has not enough memory for this request; send fewer or smaller images, or less text"
        return RequestFailure(503, "out_of_memory", message)
    first_line = (str(error).splitlines() or [""])[0][:200]
    return RequestFailure(500, "internal", f"the worker failed while it answered: {type(error).__name__}: {first_line}")


def describe(request: EngineRequest, outcome: Finished) -> str:
    """Return what the log says about an answer: its length, and where its time was spent."""
    return (
        f"{outcome.finish_reason}, {len(outcome.answer.token_ids)} tokens, queue {request.queue_s * 1000:.0f} ms, "
        f"first token {request.first_token_s(outcome) * 1000:.0f} ms, total {request.total_s * 1000:.0f} ms"
    )
