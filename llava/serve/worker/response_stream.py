"""Follows one job on the server's side: its chunks as tokens come, its time-outs, its end."""

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

CLIENT_GONE, TIMEOUT, SHUTDOWN = "client_gone", "timeout", "shutting_down"  # why a job is cancelled_event


class AnswerStream:
    """The chunks of one answer. ``close`` must follow, whether all were read or none; it frees the job's place."""

    def __init__(
        self, question: GenerationRequest, request_id: str, queue: RequestQueue, limits: RequestLimits, interval: int
    ) -> None:
        self.limits = limits
        self.interval = interval
        self._queue = queue
        self._woken = asyncio.Event()
        loop = asyncio.get_running_loop()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody reads any more
                loop.call_soon_threadsafe(self._woken.set)

        self.job = EngineRequest(question, request_id, wake)

    async def chunks(self, policy: ServingPolicy, metrics: WorkerMetrics) -> AsyncIterator[bytes]:
        """``{"text", "error_code"}`` for every ``interval`` tokens, then one with the figures, or with what failed."""
        job, prompt, shown, tokens = self.job, self.job.question.echo, "", 0
        try:
            while job.outcome is None:
                await self._change()
                if job.outcome is None and job.tokens - tokens >= self.interval and job.text != shown:
                    shown, tokens = job.text, job.tokens
                    yield chunk(prompt + shown)
            yield self._last(policy)
        except Exception as error:  # all of it reaches the client; the unforeseen the log, too
            failure = failure_of(error)
            metrics.refused(failure.status)
            if failure.reason == "internal" and error is not job.outcome:
                log.exception("request %s: failed", job.request_id)
            elif failure.reason != "internal":
                log.warning("request %s: %d %s", job.request_id, failure.status, failure.message)
            yield failure.chunk(job.request_id)

    async def _change(self) -> None:
        """Wait until the engine has done something. Raises RequestFailure where that takes too long."""
        job, limits = self.job, self.limits
        waits = job.began is None
        limit = limits.queue_timeout_s if waits else limits.generation_timeout_s
        deadline = (job.arrived if job.began is None else job.began) + limit
        with anyio.move_on_after(max(0.0, deadline - time.perf_counter())):
            await self._woken.wait()
        self._woken.clear()
        if job.outcome is not None or time.perf_counter() < deadline or waits != (job.began is None):
            return
        job.cancel(TIMEOUT)
        if waits:
            self._queue.drop(job)
            raise RequestFailure(503, "timeout", f"the request waited more than {limit:g} s; please ask again later")
        raise RequestFailure(504, "timeout", f"the answer took more than {limit:g} s and was stopped")

    def _last(self, policy: ServingPolicy) -> bytes:
        job, outcome = self.job, self.job.outcome
        if isinstance(outcome, BaseException):
            raise outcome
        assert outcome is not None
        if outcome.finish_reason == ABORT:
            raise RequestFailure(503, SHUTDOWN, "the worker is shutting down and stopped the answer; please ask again")
        usage = {
            "prompt_tokens": job.question.prompt_tokens,
            "completion_tokens": len(outcome.answer.token_ids),
        }
        fields: dict[str, Any] = {
            "request_id": job.request_id,
            "finish_reason": outcome.finish_reason,
            "usage": {**usage, "total_tokens": sum(usage.values())},
            "queue_ms": round(job.queue_s * 1000, 3),
            "time_to_first_token_ms": round(job.first_token_s(outcome) * 1000, 3),
            "token_ms": [round(ms, 3) for ms in outcome.answer.token_ms],
            "total_ms": round(job.total_s * 1000, 3),
            "mean_batch": round(outcome.batch, 2),
        }
        return chunk(job.question.echo + outcome.text, **fields, **policy.reply(job.question.fields, outcome))

    def close(self) -> bool:
        """Nobody reads on: stop the job where it is still wanted. Whether it was."""
        if self.job.outcome is not None or self.job.cancelled_event.is_set():
            return False
        self.job.cancel(CLIENT_GONE)
        self._queue.drop(self.job)
        return True


def failure_of(error: BaseException) -> RequestFailure:
    """What a client is told of an error."""
    if isinstance(error, RequestFailure):
        return error
    if isinstance(error, LlavaError):
        return RequestFailure(400, "bad_request", str(error))
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        message = "the worker has not enough memory for this request; send fewer or smaller pictures, or less text"
        return RequestFailure(503, "out_of_memory", message)
    first_line = (str(error).splitlines() or [""])[0][:200]
    return RequestFailure(500, "internal", f"the worker failed while it answered: {type(error).__name__}: {first_line}")


def log_end(job: EngineRequest, outcome: Outcome) -> None:
    """One line on a job that has ended, or the whole error."""
    if isinstance(outcome, Finished):
        reason = job.halt_reason if outcome.finish_reason == ABORT else outcome.finish_reason
        log.info(
            "request %s: %d tokens, %s, queue %.0f ms, first token %.0f ms, total %.0f ms",
            job.request_id,
            len(outcome.answer.token_ids),
            reason,
            job.queue_s * 1000,
            job.first_token_s(outcome) * 1000,
            job.total_s * 1000,
        )
    elif failure_of(outcome).reason == "internal":
        log.error("request %s: failed", job.request_id, exc_info=outcome)
