"""The API's backend on Ray, with handles whose replicas answer, refuse, are full, or are lost."""

from __future__ import annotations

import asyncio
import json
import time
from types import SimpleNamespace

import pytest

from llava.serve.middleware.request_end import RequestEnd, recording
from llava.serve.protocol.errors import RequestFailure

pytest.importorskip("ray.serve", exc_type=ImportError)
from ray.exceptions import RayActorError, RayTaskError
from ray.serve.exceptions import BackPressureError

from ada.serve.ray.handles import TRIES, HandleBackend

pytestmark = pytest.mark.anyio
BODY = {"model": "tiny", "prompt": "p", "images": [], "max_new_tokens": 8, "latency_budget": "ttft=1s"}
HEAD = (200, {}, b"")


def chunk(text: str, code: int = 0) -> bytes:
    return json.dumps({"text": text, "error_code": code, "reason": "broken"}).encode() + b"\0"


def last(text: str, counted_ms: float, total_ms: float = 60_000) -> bytes:
    """An answer's last chunk, whose replica has counted so long to its first token, and to its end."""
    figures = {"usage": {}, "time_to_first_token_ms": counted_ms, "total_ms": total_ms}
    return json.dumps({"text": text, "error_code": 0, **figures}).encode() + b"\0"


class Handle:
    """A model's handle. scripts: what each call yields in turn; an exception is raised, None is a wait for ever."""

    def __init__(self, *scripts) -> None:
        self.scripts, self.asks, self.cancelled = list(scripts), [], 0
        self.generate, self.state = SimpleNamespace(remote=self._generate), SimpleNamespace(remote=self._state)

    def options(self, **options):
        return self.generate if "method_name" in options else self

    def _generate(self, body, request_id, ask):
        self.asks.append(ask)
        handle, pieces = self, iter(self.scripts.pop(0))

        class Pieces:
            async def __anext__(self):
                for piece in pieces:
                    if piece is None:
                        await asyncio.Event().wait()
                    if isinstance(piece, Exception):
                        raise piece
                    return piece
                raise StopAsyncIteration

            def __aiter__(self):
                return self

            def cancel(self) -> None:
                handle.cancelled += 1

        return Pieces()

    async def _state(self) -> dict:
        return {"conv_mode": "v1"}


def backend_of(*scripts, timeout_s: float = 5.0) -> tuple[HandleBackend, Handle]:
    handle = Handle(*scripts)
    return HandleBackend({"tiny": handle}, timeout_s), handle


async def answer(backend: HandleBackend) -> list[str]:
    reply = await backend.open(BODY, "id")
    return [chunk["text"] async for chunk in backend.chunks(reply)]


async def test_answer_comes_chunk_by_chunk_and_the_next_promise_covers_its_way_back() -> None:
    backend, handle = backend_of([HEAD, chunk("a"), last("ab", counted_ms=50)], [HEAD, last("c", counted_ms=5)])
    assert await backend.models() == ["tiny"]
    reply, began = await backend.open(BODY, "id"), time.time()
    assert handle.asks[0].arrived == pytest.approx(began, abs=0.2)
    time.sleep(0.25)
    assert [chunk["text"] async for chunk in backend.chunks(reply)] == ["a", "ab"]
    asked = time.time()
    assert await answer(backend) == ["c"]
    assert 0.2 <= asked - handle.asks[1].arrived < 0.9


async def test_next_promise_covers_an_end_that_comes_later_after_its_count_than_the_beginning() -> None:
    backend, handle = backend_of([HEAD, chunk("a"), last("ab", 1, total_ms=5)], [HEAD, last("c", counted_ms=1)])
    async for _ in backend.chunks(await backend.open(BODY, "id")):
        time.sleep(0.25)
    asked = time.time()
    assert await answer(backend) == ["c"]
    assert 0.2 <= asked - handle.asks[1].arrived < 0.9


async def test_promise_counts_from_when_the_request_came_to_the_api() -> None:
    backend, handle = backend_of([HEAD, last("a", counted_ms=1)])
    with recording(RequestEnd("POST", "/v1/chat/completions")):
        came = time.time()
        time.sleep(0.25)  # its body is read, and its images
        assert await answer(backend) == ["a"]
    assert handle.asks[0].arrived == pytest.approx(came, abs=0.1)


async def test_replica_that_is_lost_before_its_answer_begins_is_asked_elsewhere() -> None:
    backend, handle = backend_of([RayActorError()], [RayActorError()], [HEAD, chunk("a")])
    assert await answer(backend) == ["a"] and len(handle.asks) == 3
    assert len({ask.arrived for ask in handle.asks}) == 1, "a promise counts from when it was asked first"
    backend, handle = backend_of(*[[RayActorError()]] * TRIES)
    with pytest.raises(RequestFailure) as lost:
        await answer(backend)
    assert lost.value.status == 502 and lost.value.reason == "worker_lost" and len(handle.asks) == TRIES


async def test_replica_that_is_lost_in_its_answer_ends_it_with_an_error() -> None:
    backend, _ = backend_of([HEAD, chunk("a"), RayActorError()])
    reply, seen = await backend.open(BODY, "id"), []
    with pytest.raises(RequestFailure, match="the model's replica was lost"):
        async for piece in backend.chunks(reply):
            seen.append(piece["text"])
    assert seen == ["a"]


async def test_refusals_and_errors_keep_their_status() -> None:
    refusal = (
        503,
        {"retry-after": "2"},
        json.dumps({"text": "full", "error_code": 1, "reason": "queue_full"}).encode(),
    )
    backend, handle = backend_of([refusal], [BackPressureError(1, 1)], [HEAD, chunk("broken", 3)], [None])
    with pytest.raises(RequestFailure) as refused:
        await answer(backend)
    assert (refused.value.status, refused.value.reason, refused.value.retry_after) == (503, "queue_full", 2)
    with pytest.raises(RequestFailure) as full:
        await answer(backend)
    assert (full.value.status, full.value.reason) == (429, "queue_full")
    with pytest.raises(RequestFailure, match="broken"):
        await answer(backend)
    backend.timeout_s = 0.05
    with pytest.raises(RequestFailure) as late:
        await answer(backend)
    assert late.value.status == 504 and handle.cancelled == 1, "nobody waits for that answer any more"


async def test_routers_refusal_and_faults_of_code_pass_through() -> None:
    refused = RequestFailure(503, "promise_not_possible", "no replica can")
    fault = RayTaskError("f", "traceback", ValueError("a bug"))
    backend, handle = backend_of([refused], [fault])
    with pytest.raises(RequestFailure) as seen:
        await answer(backend)
    assert seen.value is refused and len(handle.asks) == 1
    with pytest.raises(RayTaskError):
        await answer(backend)


async def test_unknown_model_is_404_and_the_template_is_the_replicas() -> None:
    backend, _ = backend_of()
    with pytest.raises(RequestFailure) as unknown:
        await backend.open({**BODY, "model": "other"}, "id")
    assert unknown.value.status == 404 and "tiny" in unknown.value.message
    assert (await backend.templates.of("tiny")).mode == "v1"


async def test_answer_that_is_left_is_cancelled() -> None:
    backend, handle = backend_of([HEAD, chunk("a"), None])
    reply = await backend.open(BODY, "id")
    await reply.aclose()
    assert handle.cancelled == 1
