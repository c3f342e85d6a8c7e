"""The pool that reads images: large ones delay no small one, a deadline ends the wait, a full pool refuses."""

import asyncio
import threading

import pytest

from llava.errors import ImageError
from llava.serve.protocol.errors import RequestFailure
from llava.serve.worker import image_pool
from llava.serve.worker.image_pool import ImagePool, default_threads

pytestmark = pytest.mark.anyio
LONG_S = 60


@pytest.fixture
def make_pool():
    """``make_pool(timeout_s)``: a pool of one thread for large images."""
    pools = []

    def make(timeout_s=LONG_S, max_pending=10) -> ImagePool:
        pools.append(ImagePool(timeout_s, max_pending, 1))
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()


class Blocked:
    """Work that begins, and ends when it is let go."""

    def __init__(self) -> None:
        self.began, self.let_go, self.was_late = threading.Event(), threading.Event(), None

    def __call__(self, is_late):
        self.began.set()
        assert self.let_go.wait(LONG_S)
        self.was_late = is_late()
        return "large"


async def until(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, LONG_S)


async def test_run_small_work_passes_large_work(make_pool):
    pool, blocked = make_pool(), Blocked()
    large = asyncio.create_task(pool.run(blocked, lambda: True))
    await until(blocked.began)
    assert [await pool.run(lambda _, n=number: n, lambda: False) for number in range(20)] == list(range(20))
    assert not large.done()
    blocked.let_go.set()
    assert await large == "large" and blocked.was_late is False


async def test_run_after_the_deadline_fails_and_what_waits_is_never_begun(make_pool):
    pool, stuck, waiting = make_pool(0.2), Blocked(), Blocked()
    outcomes = await asyncio.gather(
        pool.run(stuck, lambda: True), pool.run(waiting, lambda: True), return_exceptions=True
    )
    assert [(outcome.status, outcome.reason) for outcome in outcomes] == [(503, "timeout")] * 2
    assert "0.2 s" in outcomes[0].message and outcomes[0].retry_after
    assert await pool.run(lambda _: "small", lambda: False) == "small"
    stuck.let_go.set()
    assert await pool.run(lambda _: "next", lambda: True) == "next", "the thread is free again"
    assert stuck.was_late is True and not waiting.began.is_set()


async def test_run_in_a_full_pool_is_refused(make_pool):
    pool, blocked = make_pool(max_pending=2), Blocked()
    tasks = [asyncio.create_task(pool.run(blocked, lambda: True)) for _ in range(2)]
    await until(blocked.began)
    with pytest.raises(RequestFailure, match="2 requests") as refused:
        await pool.run(lambda _: None, lambda: False)
    assert (refused.value.status, refused.value.reason) == (429, "queue_full")
    blocked.let_go.set()
    assert await asyncio.gather(*tasks) == ["large"] * 2
    assert await pool.run(lambda _: "again", lambda: False) == "again"


async def test_run_cancelled_caller_frees_its_place(make_pool):
    pool, blocked = make_pool(max_pending=1), Blocked()
    task = asyncio.create_task(pool.run(blocked, lambda: True))
    await until(blocked.began)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await pool.run(lambda _: "next", lambda: False) == "next"
    blocked.let_go.set()


@pytest.mark.parametrize("large", [False, True])
async def test_run_raises_what_the_work_raises(make_pool, large):
    def fail(_):
        raise ImageError("image 1 is no image")

    with pytest.raises(ImageError, match="no image"):
        await make_pool().run(fail, lambda: large)


async def test_run_large_work_gives_memory_back(make_pool, monkeypatch):
    trimmed = []
    monkeypatch.setattr(image_pool, "trim_heap", lambda: trimmed.append(1))
    pool = make_pool()
    await pool.run(lambda _: None, lambda: False)
    assert not trimmed
    await pool.run(lambda _: None, lambda: True)
    assert trimmed


@pytest.mark.parametrize(("cores", "threads"), [(None, 1), (1, 1), (2, 1), (3, 1), (4, 2), (8, 4), (64, 4)])
def test_default_threads_are_half_of_the_cores(monkeypatch, cores, threads):
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    assert default_threads() == threads
