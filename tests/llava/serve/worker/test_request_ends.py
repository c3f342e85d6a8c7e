"""Every request to a worker ends in exactly one counter and one line of the log, however it ends."""

import asyncio
import collections
import logging
import random
import threading
import time

import pytest
from fixtures.serving import Client, Connection, metric_samples

from llava.errors import OptionError
from llava.serve.middleware.body_limits import BodyLimits
from llava.serve.worker.app import create_app
from llava.serve.worker.request_limits import RequestLimits
from llava.serve.worker.service import GENERATE

pytestmark = pytest.mark.anyio
ABORTED, ANSWERED = "request_success_total abort", "request_success_total length"
LIMITS = BodyLimits(max_bytes=4000, max_depth=6, body_timeout_s=0.2, send_timeout_s=0.2)


async def wait_until(condition, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        await asyncio.sleep(0.005)


class Bench:
    """A worker on an engine that the test steps, with one method for each end that a request can have.

    Each returns the counters of the requests that it made.
    """

    def __init__(self, service, engine) -> None:
        self.service, self.engine = service, engine
        self.app = create_app(service, LIMITS)
        self.client = Client(self.app)

    async def running(self) -> Connection:
        """A request that the engine has begun."""
        connection = Connection(self.app, max_new_tokens=1000)
        await wait_until(lambda: self.service.queue.load().running == 1 and self.engine.requests[-1].began)
        return connection

    async def end(self, connection: Connection) -> None:
        """Let the engine finish what runs."""
        self.engine.requests[-1].cancel("by the test")
        self.engine.tokens.release(1)
        await connection.task
        await self.idle()

    async def idle(self) -> None:
        await wait_until(lambda: self.service.status().queue_length == 0)
        while self.engine.tokens.acquire(blocking=False):
            pass

    async def answered(self) -> list[str]:
        connection = Connection(self.app, max_new_tokens=2)
        self.engine.tokens.release(2)
        await connection.task
        await self.idle()
        assert connection.parts()[-1]["finish_reason"] == "length"
        return [ANSWERED]

    async def failed(self, error: Exception, status: str) -> list[str]:
        self.engine.fail = error
        connection = Connection(self.app)
        self.engine.tokens.release(1)
        await connection.task
        self.engine.fail = None
        await self.idle()
        return [f"requests_rejected_total {status}"]

    async def failed_inside(self) -> list[str]:
        return await self.failed(RuntimeError("the abacus\nbroke"), "500")

    async def failed_by_the_request(self) -> list[str]:
        return await self.failed(OptionError("that cannot be"), "400")

    async def without_memory(self) -> list[str]:
        return await self.failed(MemoryError(), "503")

    async def left_while_running(self) -> list[str]:
        connection = await self.running()
        connection.left.set()
        await connection.task
        self.engine.tokens.release(1)
        await self.idle()
        return [ABORTED]

    async def left_in_the_queue(self) -> list[str]:
        first = await self.running()
        second = Connection(self.app)
        await wait_until(lambda: self.service.queue.load().waiting == 1)
        second.left.set()
        await second.task
        first.left.set()
        await self.end(first)
        return [ABORTED, ABORTED]  # the first as well

    async def left_at_once(self) -> list[str]:
        connection = Connection(self.app)
        connection.left.set()
        await connection.task
        self.engine.tokens.release(1)
        await self.idle()
        return [ABORTED]

    async def left_before_its_body(self) -> list[str]:
        connection = Connection(self.app)
        connection._given = True
        connection.left.set()
        await connection.task
        return [ABORTED]

    async def left_unread(self) -> list[str]:
        connection = Connection(self.app, max_new_tokens=1000)
        connection.reads.clear()
        self.engine.tokens.release(2)
        await connection.task
        self.engine.tokens.release(1)
        await self.idle()
        return [ABORTED]

    async def left_while_its_images_are_read(self) -> list[str]:
        stuck = threading.Event()
        self.service.images._small.submit(stuck.wait, 60)
        connection = Connection(self.app, prompt="<image> w5", images=["bm8="])
        await wait_until(lambda: self.service.images.pending == 1)
        connection.left.set()
        await connection.task  # long before the images' deadline
        assert self.service.images.pending == 0
        stuck.set()
        await self.idle()
        return [ABORTED]

    async def too_long(self) -> list[str]:
        limits, self.service.limits = self.service.limits, RequestLimits(generation_timeout_s=0.1)
        connection = await self.running()
        await connection.task
        self.service.limits = limits
        self.engine.tokens.release(1)
        await self.idle()
        return ["requests_rejected_total 504"]

    async def waited_too_long(self) -> list[str]:
        first = await self.running()
        limits, self.service.limits = self.service.limits, RequestLimits(queue_timeout_s=0.1)
        await Connection(self.app).task
        self.service.limits = limits
        first.left.set()
        await self.end(first)
        return ["requests_rejected_total 503", ABORTED]

    async def queue_full(self) -> list[str]:
        first, second = await self.running(), Connection(self.app)
        await wait_until(lambda: self.service.queue.load().waiting == 1)
        await Connection(self.app).task
        for connection in (second, first):
            connection.left.set()
        await second.task
        await self.end(first)
        return ["requests_rejected_total 429", ABORTED, ABORTED]

    async def body_never_arrives(self) -> list[str]:
        connection = Connection(self.app)
        connection._given = True
        await connection.task
        return ["requests_rejected_total 408"]

    async def refused(self) -> list[str]:
        """One of the requests that never wait."""
        name, status, options = random.choice(REFUSED)
        reply = await self.client.post(GENERATE, **options)
        assert reply.status_code == status, (name, reply.text)
        return [f"requests_rejected_total {status}"]

    async def wrong_method(self) -> list[str]:
        assert (await self.client.get(GENERATE)).status_code == 405
        return ["requests_rejected_total 405"]


REFUSED = [
    ("too large", 413, {"json": {"prompt": "w" * 5000}}),
    ("nested", 400, {"content": b'{"prompt": ' + b"[" * 9 + b"]" * 9 + b"}"}),
    ("UTF-16", 400, {"content": '{"prompt": "w5"}'.encode("utf-16")}),
    ("compressed", 415, {"json": {"prompt": "w5"}, "headers": {"Content-Encoding": "gzip"}}),
    ("not JSON", 400, {"content": b"{", "headers": {"Content-Type": "application/json"}}),
    ("no prompt", 422, {"json": {}}),
    ("wrong type", 422, {"json": {"prompt": 5}}),
    ("a list", 422, {"json": [1]}),
    ("a bad budget", 400, {"json": {"prompt": "w5", "latency_budget": 7}}),
    ("another model", 404, {"json": {"prompt": "w5", "model": "other"}}),
    ("an image too few", 400, {"json": {"prompt": "<image> w5"}}),
    ("not an image", 400, {"json": {"prompt": "<image> w5", "images": ["bm8="]}}),
]
ENDS = [name for name in vars(Bench) if not name.startswith("_") and name not in ("running", "end", "idle", "failed")]


@pytest.fixture
def bench(make_service, slow_engine):
    """``async with bench() as b``: a running ``Bench``."""

    class Running:
        async def __aenter__(self) -> Bench:
            service = make_service(make_engine=slow_engine.make, max_waiting=1)
            self.bench = Bench(service, slow_engine)
            self.lifespan = self.bench.app.router.lifespan_context(self.bench.app)
            await self.lifespan.__aenter__()
            return self.bench

        async def __aexit__(self, *error) -> None:
            await self.lifespan.__aexit__(*error)
            slow_engine.tokens.release(1000)
            await self.bench.client.aclose()

    return Running


async def counters(bench: Bench) -> collections.Counter:
    """Requests for an answer by counter and label."""
    samples = metric_samples((await bench.client.get("/metrics")).text)
    names = ("adallava:request_success_total ", "adallava:requests_rejected_total ")
    return collections.Counter(
        {name.removeprefix("adallava:"): int(value) for name, value in samples.items() if name.startswith(names)}
    )


async def http_count(bench: Bench) -> int:
    samples = metric_samples((await bench.client.get("/metrics")).text)
    return sum(int(n) for name, n in samples.items() if name.startswith(f"http_requests_total {GENERATE} "))


@pytest.mark.parametrize("name", ENDS)
async def test_request_of_each_end_is_counted_once_and_logged_once(bench, caplog, name) -> None:
    caplog.set_level(logging.INFO)
    async with bench() as b:
        expected = collections.Counter(await getattr(b, name)())
        assert await counters(b) == expected
        assert await http_count(b) == expected.total()
    lines = [record for record in caplog.records if "request " in record.getMessage() and GENERATE in record.message]
    assert len(lines) == expected.total()
    others = [record.getMessage() for record in caplog.records if record not in lines]
    assert not [text for text in others if any(line.message.split(":")[0] in text for line in lines)], others


@pytest.mark.parametrize("seed", range(3))
async def test_mixed_requests_counters_sum_to_the_requests_that_were_sent(bench, caplog, seed) -> None:
    chance = random.Random(seed)
    random.seed(seed)
    expected: collections.Counter = collections.Counter()
    async with bench() as b:
        for _ in range(25):
            expected.update(await getattr(b, chance.choice(ENDS))())
        assert await counters(b) == expected
        assert await http_count(b) == expected.total()


async def test_unexpected_error_is_logged_once_with_its_traceback(bench, caplog) -> None:
    async with bench() as b:
        await b.failed_inside()
    [record] = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.exc_info is not None and "abacus" in caplog.text


async def test_line_of_the_log_shows_no_control_character_of_the_client(bench, caplog) -> None:
    caplog.set_level(logging.INFO)
    async with bench() as b:
        await b.client.post(GENERATE, json={"prompt": "w5", "latency_budget": "1\n2026 | INFO | forged\x1b[2J"})
    assert "forged" in caplog.text
    assert not any("\n" in record.getMessage() or "\x1b" in record.getMessage() for record in caplog.records)


async def test_cancelled_request_during_shutdown_is_counted_as_503(bench) -> None:
    async with bench() as b:
        connection = await b.running()
        connection.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connection.task
        b.engine.tokens.release(1)
        await b.idle()
        assert await counters(b) == {"requests_rejected_total 503": 1}
