"""A worker whose engine fails by itself: every request ends with the truth, and liveness shows it."""

import asyncio
import json
import logging
import threading
import time

import pytest
from fixtures.serving import Client, metric_samples

from llava.errors import LlavaError
from llava.serve.engine.batch_engine import BatchEngine
from llava.serve.engine.threads_engine import ThreadsEngine
from llava.serve.protocol.errors import RequestFailure
from llava.serve.worker.app import create_app, request_model
from llava.serve.worker.drain import stopping_in_order

pytestmark = pytest.mark.anyio


async def wait_until(condition, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        await asyncio.sleep(0.01)


# What fails, outside of any one request: the engine, the object that is patched, and the name of its method.
FAULTS = {
    "batch: removing": (BatchEngine, "engine", "_remove"),
    "batch: retiring": (BatchEngine, "engine", "_retire_finished"),
    "batch: admitting": (BatchEngine, "engine", "_admit"),
    "batch: publishing": (BatchEngine, "queue", "done"),
    "batch: counting": (BatchEngine, "metrics", "record_work"),
    "threads: publishing": (ThreadsEngine, "queue", "done"),
    "threads: counting": (ThreadsEngine, "metrics", "record_work"),
    "threads: taking": (ThreadsEngine, "queue", "take"),
}
ERRORS = [RuntimeError("the abacus broke"), MemoryError(), SystemExit(3), KeyError("x")]


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_engine_that_fails_ends_all_requests_and_liveness(make_service, caplog, name, error) -> None:
    make_engine, attribute, method = FAULTS[name]
    service = make_service(make_engine=make_engine, slots=1)
    app = create_app(service)
    async with app.router.lifespan_context(app), Client(app) as client:
        begun, release = threading.Event(), threading.Event()
        original = service.policy.grant

        def grant(fields, load):
            begun.set()
            release.wait(60)
            return original(fields, load)

        service.policy.grant = grant
        body = {"prompt": "w5", "max_new_tokens": 3, "temperature": 0}
        asking = [asyncio.create_task(client.post("/worker_generate_stream", json=body)) for _ in range(3)]
        await wait_until(lambda: begun.is_set() and service.queue.load().waiting == 2)

        def fail(*_, **__):
            raise error

        setattr(getattr(service, attribute), method, fail)
        release.set()
        replies = await asyncio.gather(*asking)
        last = [reply.content.split(b"\0")[-2] for reply in replies]
        assert sum(b'"reason": "engine_failed"' in part for part in last) >= 2, last
        assert all(type(error).__name__.encode() in part for part in last if b"engine_failed" in part)
        health, ready = await client.get("/health"), await client.get("/ready")
        assert health.status_code == ready.status_code == 503
        assert "the engine has failed" in health.json()["reason"] and "engine" in ready.json()["reason"]
        refused = await client.post("/worker_generate_stream", json=body)
        assert refused.status_code == 503 and refused.headers["Retry-After"] == "1"
        samples = metric_samples((await client.get("/metrics")).text)
        ends = ("adallava:request_success_total ", "adallava:requests_rejected_total ")
        assert sum(value for sample, value in samples.items() if sample.startswith(ends)) == 4
    assert service.lifecycle.failure is not None
    assert [record for record in caplog.records if record.levelno == logging.CRITICAL and record.exc_info]


class FakeHeartBeat:
    """A heartbeat that notes when it leaves."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.left = asyncio.Event()

    async def __aenter__(self) -> "FakeHeartBeat":
        self.task = asyncio.create_task(self.beat())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()

    async def beat(self) -> None:
        if self.error is not None:
            raise self.error
        await asyncio.Event().wait()

    async def leave(self) -> None:
        self.left.set()


@pytest.mark.parametrize("stops", ["drains", "fails"])
async def test_worker_that_stops_leaves_its_controller_at_once(make_service, stops) -> None:
    service, heart_beat = make_service(), FakeHeartBeat()
    async with stopping_in_order(service, heart_beat):
        if stops == "drains":
            service.lifecycle.drain()
        else:
            thread = threading.Thread(target=service.queue.fail, args=(RuntimeError(),))
            thread.start()
            thread.join()
        await asyncio.wait_for(heart_beat.left.wait(), 60)
        assert service.queue.closed and service.not_ready_reason() is not None


@pytest.fixture
def reading(make_service, image_text):
    """A worker, a request to it whose images are being read, and what lets the reading end."""
    service, begun, release = make_service(), threading.Event(), threading.Event()
    check = service.policy.check

    def wait_and_check(fields):
        begun.set()
        assert release.wait(60)
        return check(fields)

    service.policy.check = wait_and_check
    body = request_model()(prompt="w5 <image>", images=[image_text], max_new_tokens=3, temperature=0)
    service.engine.start()
    yield service, body, begun, release
    release.set()
    service.queue.close()
    service.images.close()
    assert service.engine.join(60)


async def test_request_whose_images_are_being_read_as_the_worker_drains_is_answered(reading) -> None:
    service, body, begun, release = reading
    async with stopping_in_order(service, None):
        entering = asyncio.create_task(service.accept(body, "one"))
        await wait_until(begun.is_set)
        service.lifecycle.drain()
        assert not service.queue.closed and service.not_ready_reason() == "it is shutting down"
        with pytest.raises(RequestFailure, match="it is shutting down") as refused:
            await service.accept(body, "two")
        assert refused.value.status == 503 and not service.queue.closed
        release.set()
        stream = await entering
        assert service.queue.closed, "it was the last one"
        *_, last = [json.loads(chunk[:-1]) async for chunk in stream.chunks(service.policy)]
        await service.close(stream)
    assert last["usage"]["completion_tokens"] == 3


@pytest.mark.parametrize("ends", ["fails", "is abandoned"])
async def test_worker_that_does_not_answer_any_more_does_not_wait_for_images(reading, ends) -> None:
    service, body, begun, release = reading
    async with stopping_in_order(service, None):
        entering = asyncio.create_task(service.accept(body, "one"))
        await wait_until(begun.is_set)
        if ends == "fails":
            service.lifecycle.fail("the heartbeat", RuntimeError())
        else:
            service.lifecycle.drain()
            service.abandon()
        assert service.queue.closed
        release.set()
        with pytest.raises(RequestFailure, match="shutting down"):
            await entering


async def test_request_that_is_refused_as_the_worker_drains_closes_the_queue(reading) -> None:
    service, body, begun, release = reading
    entering = asyncio.create_task(service.accept(body.model_copy(update={"prompt": "no tag"}), "one"))
    await wait_until(begun.is_set)
    service.drain()
    assert not service.queue.closed
    release.set()
    with pytest.raises(LlavaError):
        await entering
    assert service.queue.closed


async def test_heartbeat_that_fails_fails_the_worker(make_service) -> None:
    service, heart_beat = make_service(), FakeHeartBeat(ValueError("no pulse"))
    async with stopping_in_order(service, heart_beat):
        await asyncio.wait_for(heart_beat.left.wait(), 60)
    assert service.lifecycle.failure.startswith("the heartbeat has failed (ValueError)")
