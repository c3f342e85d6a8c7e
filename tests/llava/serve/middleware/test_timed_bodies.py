"""Bodies that are read as they come have a time limit, too."""

import asyncio

import pytest

from llava.serve.middleware.request_end import RequestEnd, recording
from llava.serve.middleware.timed_bodies import TimedBodies

pytestmark = pytest.mark.anyio


async def seen(*messages: dict, then_leaves: bool = False, timeout_s: float = 0.05) -> tuple[list[dict], RequestEnd]:
    """What an application sees of a client that sends these messages and then nothing, or leaves after 0.2 s."""
    received: list[dict] = []
    incoming = list(messages)

    async def receive() -> dict:
        if incoming:
            return incoming.pop(0)
        if then_leaves:
            await asyncio.sleep(0.2)
            return {"type": "http.disconnect"}
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    async def app(scope, receive, send) -> None:
        while not received or received[-1]["type"] != "http.disconnect":
            received.append(await receive())
            if not received[-1].get("more_body", False) and not then_leaves:
                return

    end = RequestEnd("POST", "/upload")
    with recording(end):
        await TimedBodies(app, timeout_s)({"type": "http"}, receive, None)
    return received, end


def piece(more: bool) -> dict:
    return {"type": "http.request", "body": b"x", "more_body": more}


async def test_body_that_arrives_is_passed_on() -> None:
    received, end = await seen(piece(True), piece(False))
    assert received == [piece(True), piece(False)] and end.failed_status is None


@pytest.mark.parametrize("pieces", [0, 1, 3])
async def test_body_that_stops_arriving_ends_as_a_disconnect_with_408(pieces) -> None:
    received, end = await seen(*[piece(True)] * pieces)
    assert received == [*[piece(True)] * pieces, {"type": "http.disconnect"}]
    assert end.failed_status == 408 and "0.05 s" in end.detail


async def test_client_may_stay_longer_than_its_body_takes() -> None:
    received, end = await seen(piece(False), then_leaves=True)
    assert received[-1] == {"type": "http.disconnect"} and end.failed_status is None
