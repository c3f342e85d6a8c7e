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

from llava.errors import LlavaError
from llava.serve.engine.policy import ServingPolicy
from llava.serve.engine.request import ABORT, EngineRequest, Finished, GenerationRequest, Outcome
from llava.serve.engine.request_queue import RequestQueue
from llava.serve.protocol.errors import RequestFailure
from llava.serve.protocol.schemas import chunk
from llava.serve.worker.metrics import WorkerMetrics
from llava.serve.worker.request_limits import RequestLimits

log = logging.getLogger(__name__)

CLIENT_DISCONNECTED, TIMEOUT, SHUTDOWN = "client_disconnected", "timeout", "shutting_down"  # why one is cancelled


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

    async def chunks(self, policy: ServingPolicy, metrics: WorkerMetrics) -> AsyncIterator[bytes]:
        """Yield ``{"text", "error_code"}`` for every ``interval`` tokens, then one with the figures or the error."""
        request, prompt, shown, tokens = self.request, self.request.generation.echo, "", 0
        try:
            while request.outcome is None:
                await self._wait_for_change()
                if request.outcome is None and request.tokens - tokens >= self.interval and request.text != shown:
                    shown, tokens = request.text, request.tokens
                    yield chunk(prompt + shown)
            yield self._last_chunk(policy)
        except Exception as error:  # every error reaches the client; unexpected ones also the log
            failure = failure_of(error)
            metrics.record_failure(failure.status)
            if failure.reason == "internal" and error is not request.outcome:
                log.exception("request %s: failed", request.request_id)
            elif failure.reason != "internal":
                log.warning("request %s: %d %s", request.request_id, failure.status, failure.message)
            yield failure.chunk(request.request_id)

    async def _wait_for_change(self) -> None:
        """Wait until the engine has done something. Raises RequestFailure where that takes too long."""
        request, limits = self.request, self.limits
        waits = request.began is None
        limit_s = limits.queue_timeout_s if waits else limits.generation_timeout_s
        deadline = (request.arrived if request.began is None else request.began) + limit_s
        with anyio.move_on_after(max(0.0, deadline - time.perf_counter())):
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
            raise outcome
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
        return chunk(request.generation.echo + outcome.text, **fields, **reply)

    def close(self) -> bool:
        """Stop the request where it is not finished, as nobody reads on; return whether it was stopped."""
        if self.request.outcome is not None or self.request.cancelled_event.is_set():
            return False
        self.request.cancel(CLIENT_DISCONNECTED)
        self._queue.drop(self.request)
        return True


def failure_of(error: BaseException) -> RequestFailure:
    """Return the failure that a client gets for an error."""
    if isinstance(error, RequestFailure):
        return error
    if isinstance(error, LlavaError):
        return RequestFailure(400, "bad_request", str(error))
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        message = "the worker has not enough memory for this request; send fewer or smaller images, or less text"
        return RequestFailure(503, "out_of_memory", message)
    first_line = (str(error).splitlines() or [""])[0][:200]
    return RequestFailure(500, "internal", f"the worker failed while it answered: {type(error).__name__}: {first_line}")


def log_end(request: EngineRequest, outcome: Outcome) -> None:
    """Log one line about a request that has ended, or an unexpected error with its traceback."""
    if isinstance(outcome, Finished):
        reason = request.cancel_reason if outcome.finish_reason == ABORT else outcome.finish_reason
        log.info(
            "request %s: %d tokens, %s, queue %.0f ms, first token %.0f ms, total %.0f ms",
            request.request_id,
            len(outcome.answer.token_ids),
            reason,
            request.queue_s * 1000,
            request.first_token_s(outcome) * 1000,
            request.total_s * 1000,
        )
    elif failure_of(outcome).reason == "internal":
        log.error("request %s: failed", request.request_id, exc_info=outcome)
