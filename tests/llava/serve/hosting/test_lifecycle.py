"""What a server's lifecycle says, and whom it calls when the server stops."""

import asyncio
import logging

import pytest

from llava.serve.hosting.lifecycle import Lifecycle


def test_lifecycle_of_a_working_server_gives_no_reason() -> None:
    assert Lifecycle().not_ready_reason is None


def test_lifecycle_drains_once() -> None:
    lifecycle, calls = Lifecycle(), []
    lifecycle.call_on_stop(lambda: calls.append(1))
    lifecycle.drain()
    lifecycle.drain()
    assert calls == [1] and lifecycle.not_ready_reason == "it is shutting down"


def test_lifecycle_keeps_the_first_failure_and_logs_each_with_its_traceback(caplog) -> None:
    lifecycle, calls = Lifecycle(), []
    lifecycle.call_on_stop(lambda: calls.append(1))
    lifecycle.fail("the engine", RuntimeError("first"))
    lifecycle.fail("the heartbeat", RuntimeError("second"))
    assert calls == [1] and lifecycle.failure.startswith("the engine has failed (RuntimeError)")
    assert [record.levelno for record in caplog.records] == [logging.CRITICAL] * 2
    assert "first" in caplog.text and "second" in caplog.text


@pytest.mark.anyio
@pytest.mark.parametrize("ends", ["fails", "is cancelled", "returns"])
async def test_watched_task_fails_the_server_only_where_it_fails(ends) -> None:
    lifecycle = Lifecycle()

    async def work() -> None:
        await asyncio.sleep(0)
        if ends == "fails":
            raise ValueError("lost its way")

    task = lifecycle.watch("the work", asyncio.create_task(work()))
    if ends == "is cancelled":
        task.cancel()
    await asyncio.wait([task])
    await asyncio.sleep(0)
    assert (lifecycle.failure is not None) == (ends == "fails")
