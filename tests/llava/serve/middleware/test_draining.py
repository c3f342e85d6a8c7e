"""Requests in flight, and what is refused while a server drains or has failed."""

import asyncio
import json

import pytest

from llava.serve.hosting.lifecycle import Lifecycle
from llava.serve.middleware.draining import MONITORING, Draining
from llava.serve.middleware.request_end import RequestEnd, recording

pytestmark = pytest.mark.anyio


class Exchange:
    """An application that answers when ``release`` is set, and the requests to it."""

    def __init__(self) -> None:
        self.lifecycle = Lifecycle()
        self.release = asyncio.Event()
        self.middleware = Draining(self.answer, self.lifecycle, (*MONITORING, "/open/"))

    async def answer(self, scope, receive, send) -> None:
        await self.release.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def status(self, path: str) -> tuple[int, dict]:
        sent: list[dict] = []

        async def send(message: dict) -> None:
            sent.append(message)

        await self.middleware({"type": "http", "path": path, "headers": []}, None, send)
        return sent[0]["status"], dict(sent[0]["headers"])


async def test_requests_in_flight_are_counted_but_not_those_of_monitoring() -> None:
    exchange = Exchange()
    asking = [asyncio.create_task(exchange.status(path)) for path in ("/a", "/b", "/health", "/metrics", "/open/x")]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert exchange.lifecycle.in_flight == 2
    exchange.release.set()
    assert [status for status, _ in await asyncio.gather(*asking)] == [200] * 5
    assert exchange.lifecycle.in_flight == 0


@pytest.mark.parametrize("stopped", ["draining", "failed"])
async def test_stopping_server_refuses_new_requests_and_answers_monitoring(stopped) -> None:
    exchange = Exchange()
    exchange.release.set()
    if stopped == "draining":
        exchange.lifecycle.drain()
    else:
        exchange.lifecycle.fail("the engine", RuntimeError())
    for path in ("/a", "/open", "/healthy"):
        status, headers = await exchange.status(path)
        assert status == 503 and headers[b"retry-after"] == b"1", path
    for path in (*MONITORING, "/open/x"):
        assert (await exchange.status(path))[0] == 200


async def test_request_that_fails_is_not_in_flight_any_more() -> None:
    exchange = Exchange()

    async def fail(scope, receive, send) -> None:
        raise ValueError("lost")

    exchange.middleware.app = fail
    with pytest.raises(ValueError, match="lost"):
        await exchange.status("/a")
    assert exchange.lifecycle.in_flight == 0


def test_lifecycle_abandons_nothing_without_requests() -> None:
    Lifecycle().abandon()


@pytest.mark.parametrize("complete", [False, True])
async def test_abandoned_reply_of_a_stated_length_gets_nothing_added(complete) -> None:
    lifecycle, sent = Lifecycle(), []

    async def app(scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        await send({"type": "http.response.body", "body": b"full" if complete else b"ha", "more_body": not complete})
        await asyncio.Event().wait()

    async def send(message: dict) -> None:
        sent.append(message)

    scope = {"type": "http", "path": "/a", "headers": [], "state": {}}
    answering = asyncio.create_task(Draining(app, lifecycle)(scope, None, send))
    await asyncio.sleep(0.01)
    lifecycle.abandon()
    await answering
    assert len(sent) == 2 and lifecycle.in_flight == 0


async def test_open_page_ends_with_the_server_only() -> None:
    exchange, sent = Exchange(), []

    async def send(message) -> None:
        sent.append(message)

    end = RequestEnd("GET", "/open/x")
    with recording(end):
        page = asyncio.create_task(exchange.middleware({"type": "http", "path": "/open/x", "headers": []}, None, send))
    await asyncio.sleep(0.01)
    exchange.lifecycle.drain()
    exchange.lifecycle.abandon()
    await asyncio.sleep(0.01)
    assert not page.done()
    exchange.lifecycle.end_visits()
    await page
    assert end.failed_status == 499 and not exchange.lifecycle.visits
    assert sent[0]["status"] == 503 and not sent[-1].get("more_body"), "its reply is complete"


@pytest.mark.parametrize("begun", [False, True])
async def test_abandoned_request_ends_with_a_failure(begun) -> None:
    lifecycle, sent = Lifecycle(), []
    cleaned = asyncio.Event()

    async def app(scope, receive, send) -> None:
        try:
            if begun:
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": b"half", "more_body": True})
            await asyncio.Event().wait()
        finally:
            cleaned.set()

    async def send(message: dict) -> None:
        sent.append(message)

    end = RequestEnd("GET", "/a")
    with recording(end):
        scope = {"type": "http", "path": "/a", "headers": [], "state": {"request_id": "one"}}
        answering = asyncio.create_task(Draining(app, lifecycle)(scope, None, send))
        await asyncio.sleep(0.01)
    lifecycle.drain()
    lifecycle.abandon()
    await answering
    assert cleaned.is_set() and lifecycle.in_flight == 0 and not lifecycle.cancels
    assert sent[0]["status"] == (200 if begun else 503)
    assert not sent[-1].get("more_body", False)
    last = json.loads(sent[-1]["body"].rstrip(b"\0"))
    assert last["reason"] == "shutting_down" and end.failed_status == 503
