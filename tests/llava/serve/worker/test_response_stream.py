"""A worker under faults, on an engine that the test steps: full queue, disconnects, time-outs, failures, shutdown."""

import asyncio
import logging
import time

import pytest
import torch

from llava.errors import OptionError
from llava.generation import SamplingParams
from llava.model.multimodal.image_pipeline import PreparedImages
from llava.serve.engine.request import GenerationRequest
from llava.serve.middleware.body_limits import BodyLimits
from llava.serve.worker.app import create_app
from llava.serve.worker.request_limits import RequestLimits
from llava.serve.worker.response_stream import ResponseStream

pytestmark = pytest.mark.anyio


async def wait_until(condition, seconds: float = 60) -> None:
    """Wait until ``condition()`` is true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        await asyncio.sleep(0.01)


@pytest.fixture
def worker(make_service, slow_engine):
    """``async with worker(**changes) as (service, app)``: a running worker on the slow engine."""

    class Running:
        def __init__(self, limits=None, **changes) -> None:
            self.service = make_service(make_engine=slow_engine.make, **changes)
            self.app = create_app(self.service, limits)

        async def __aenter__(self):
            self.lifespan = self.app.router.lifespan_context(self.app)
            await self.lifespan.__aenter__()
            return self.service, self.app

        async def __aexit__(self, *error) -> None:
            self.service.abandon()
            slow_engine.tokens.release(1000)
            await self.lifespan.__aexit__(*error)
            assert self.service.engine.join(60)

    return Running


async def test_full_queue_is_a_429_with_retry_after(connect, worker, slow_engine):
    async with worker(max_waiting=2) as (service, app):
        open_ones = [connect(app, max_new_tokens=1) for _ in range(3)]
        await wait_until(lambda: service.queue.load().waiting == 2 and service.queue.load().running == 1)
        refused = connect(app)
        await refused.task
        assert refused.messages[0]["status"] == 429
        assert int(dict(refused.messages[0]["headers"])[b"retry-after"]) >= 1
        [said] = refused.parts()
        assert said["error_code"] == 1 and said["reason"] == "queue_full" and "1 requests running and 2" in said["text"]
        assert service.status().queue_length == 3
        slow_engine.tokens.release(3)
        await asyncio.gather(*(one.task for one in open_ones))
        assert [one.parts()[-1]["text"] for one in open_ones] == ["w5w"] * 3, "accepted requests are answered"
        await wait_until(lambda: service.queue.load().running == 0)
        assert service.queue.load().seconds_per_request > 0


async def test_queue_of_length_zero_takes_one_request(connect, worker, slow_engine):
    async with worker(max_waiting=0) as (service, app):
        first = connect(app, max_new_tokens=1)
        await wait_until(lambda: service.queue.load().running == 1)
        second = connect(app)
        await second.task
        assert second.messages[0]["status"] == 429
        slow_engine.tokens.release()
        await first.task
        assert first.parts()[-1]["text"] == "w5w"


async def test_client_that_disconnects_stops_its_generation(connect, worker, slow_engine):
    async with worker() as (service, app):
        client = connect(app, max_new_tokens=100)
        slow_engine.tokens.release(3)
        await wait_until(lambda: client.parts() and client.parts()[-1]["text"] == "w5www")
        client.left.set()
        await client.task
        slow_engine.tokens.release(50)
        [request] = slow_engine.requests
        await wait_until(lambda: request.outcome is not None)
        assert request.tokens <= 3 + 2 and request.cancel_reason == "client_disconnected"
        await wait_until(lambda: service.queue.load().running == 0)
        assert service.queue.load().seconds_per_request is None, "an aborted answer is not timed"


async def test_client_that_disconnects_in_the_queue_is_never_answered(connect, worker, slow_engine):
    async with worker() as (service, app):
        first = connect(app, max_new_tokens=1)
        await wait_until(lambda: service.queue.load().running == 1)
        second = connect(app, max_new_tokens=1)
        await wait_until(lambda: service.queue.load().waiting == 1)
        second.left.set()
        await wait_until(lambda: service.queue.load().waiting == 0)
        slow_engine.tokens.release(2)
        await first.task
        assert len(slow_engine.requests) == 1


async def test_client_that_disconnects_at_once_frees_its_slot(connect, worker, slow_engine):
    async with worker() as (service, app):
        client = connect(app, max_new_tokens=100)
        client.left.set()
        await client.task
        slow_engine.tokens.release(5)
        await wait_until(lambda: service.status().queue_length == 0)


async def test_slow_client_delays_nobody_and_gets_the_newest_text(connect, worker, slow_engine):
    async with worker() as (_, app):
        slow = connect(app, max_new_tokens=50)
        slow_engine.tokens.release(1)
        await wait_until(lambda: slow.parts())
        slow.reads.clear()
        slow_engine.tokens.release(50)
        quick = connect(app, max_new_tokens=1)
        await quick.task
        assert quick.parts()[-1]["text"] == "w5w"
        slow.reads.set()
        await slow.task
        assert slow.parts()[-1]["text"] == "w5" + "w" * 50
        assert len(slow.parts()) <= 4, "what it did not read in time was left out"


async def test_client_that_stops_reading_stops_its_generation(connect, worker, slow_engine, caplog):
    caplog.set_level(logging.INFO)
    async with worker(BodyLimits(send_timeout_s=0.2)) as (_, app):
        client = connect(app, max_new_tokens=100)
        client.reads.clear()
        slow_engine.tokens.release(2)
        await client.task
        slow_engine.tokens.release(10)
        await wait_until(lambda: slow_engine.requests and slow_engine.requests[0].outcome is not None)
        assert slow_engine.requests[0].tokens <= 5
    assert "left its answer unread for 0.2 s" in caplog.text


async def test_request_that_waits_too_long_gets_a_timeout(connect, worker, slow_engine):
    async with worker() as (service, app):
        service.limits = RequestLimits(queue_timeout_s=0.2)
        first = connect(app, max_new_tokens=1)
        await wait_until(lambda: service.queue.load().running == 1)
        second = connect(app, max_new_tokens=1)
        await second.task
        [said] = second.parts()
        assert said["error_code"] == 1 and said["reason"] == "timeout" and "0.2 s" in said["text"]
        slow_engine.tokens.release(1)
        await first.task
        assert first.parts()[-1]["error_code"] == 0, "the time in the queue does not count for one that has begun"
        assert len(slow_engine.requests) == 1


async def test_answer_that_takes_too_long_gets_a_timeout_and_stops(connect, worker, slow_engine):
    async with worker() as (service, app):
        service.limits = RequestLimits(generation_timeout_s=0.3)
        client = connect(app, max_new_tokens=100)
        slow_engine.tokens.release(2)
        await client.task
        said = client.parts()[-1]
        assert said["error_code"] == 1 and said["reason"] == "timeout" and "0.3 s" in said["text"]
        slow_engine.tokens.release(5)
        await wait_until(lambda: slow_engine.requests[0].outcome is not None)
        assert slow_engine.requests[0].tokens <= 4


@pytest.mark.parametrize(
    ("error", "reason", "text"),
    [
        (RuntimeError("the abacus broke\nsecond line"), "internal", "RuntimeError: the abacus broke"),
        (OptionError("that cannot be"), "bad_request", "that cannot be"),
        (torch.OutOfMemoryError("CUDA out of memory"), "out_of_memory", "not enough memory"),
        (MemoryError(), "out_of_memory", "not enough memory"),
    ],
)
async def test_failure_reaches_client_and_log_with_the_requests_id(
    connect, worker, slow_engine, caplog, error, reason, text
):
    caplog.set_level(logging.INFO)
    async with worker() as (service, app):
        slow_engine.fail = error
        client = connect(app)
        slow_engine.tokens.release(1)
        await client.task
        [said] = client.parts()
        assert said["error_code"] == 1 and said["reason"] == reason and text in said["text"]
        assert "second line" not in said["text"] and "NETWORK" not in said["text"]
        assert said["request_id"] == dict(client.messages[0]["headers"])[b"x-request-id"].decode()
        logged = [record for record in caplog.records if said["request_id"] in record.getMessage()]
        assert any(record.levelno >= logging.WARNING for record in logged)
        slow_engine.fail = None
        following = connect(app, max_new_tokens=1)
        slow_engine.tokens.release(1)
        await following.task
        assert following.parts()[-1]["error_code"] == 0, "the next request is answered"
        await wait_until(lambda: service.queue.load().running == 0)
    if reason == "internal":
        assert "second line" in caplog.text


async def test_drain_answers_accepted_requests_and_refuses_new_ones(connect, worker, slow_engine):
    async with worker() as (service, app):
        taken = [connect(app, max_new_tokens=2) for _ in range(3)]
        await wait_until(lambda: service.status().queue_length == 3)
        service.drain()
        late = connect(app)
        await late.task
        assert late.messages[0]["status"] == 503 and "shutting down" in late.parts()[0]["text"]
        slow_engine.tokens.release(6)
        await asyncio.gather(*(one.task for one in taken))
        assert all(one.parts()[-1]["text"] == "w5ww" for one in taken)
        assert service.engine.join(60), "the engine ends with its queue"


async def test_abandoned_requests_get_shutting_down(connect, worker, slow_engine):
    async with worker() as (service, app):
        taken = [connect(app, max_new_tokens=100) for _ in range(2)]
        slow_engine.tokens.release(2)
        await wait_until(lambda: service.queue.load().running == 1 and service.queue.load().waiting == 1)
        service.drain()
        service.abandon()
        slow_engine.tokens.release(1)
        await asyncio.gather(*(one.task for one in taken))
        for one in taken:
            assert one.parts()[-1]["reason"] == "shutting_down" and one.parts()[-1]["error_code"] == 1


async def test_dead_engine_makes_the_worker_not_ready(connect, worker, slow_engine, client_of):
    service = worker(max_waiting=1).service
    service.engine.work = None
    async with client_of(service) as client:
        service.queue.close()
        await wait_until(lambda: not service.engine.alive)
        service.queue._closed = False
        ready = await client.get("/ready")
        assert ready.status_code == 503 and "engine has died" in ready.json()["reason"]
        assert (await client.get("/health")).status_code == 503
        asked = await client.post("/worker_generate_stream", json={"prompt": "w5"})
        assert asked.status_code == 503 and "engine has died" in asked.json()["text"]


async def test_body_that_never_arrives_gets_a_408(connect, worker):
    async with worker(BodyLimits(body_timeout_s=0.2)) as (_, app):
        client = connect(app)
        client._given = True
        await client.task
        assert client.messages[0]["status"] == 408 and "0.2 s" in client.parts()[0]["text"]


async def test_request_that_starts_as_its_wait_ends_goes_on(make_service):
    service = make_service()
    limits = RequestLimits(queue_timeout_s=0.1, generation_timeout_s=0.4)
    question = GenerationRequest("w5", PreparedImages(), SamplingParams(), (), {}, 2, "w5")
    stream = ResponseStream(question, "one", service.queue, limits, 1)
    # As if the engine's call were still on its way when the time is up.
    asyncio.get_running_loop().call_later(0.05, setattr, stream.request, "began", time.perf_counter() + 0.05)
    [said] = [part async for part in stream.chunks(service.policy)]
    assert b"took more than 0.4 s" in said
