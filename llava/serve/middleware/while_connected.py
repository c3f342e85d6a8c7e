"""Work for a client that ends as the client leaves, and forgets the client's body while it goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio
from fastapi import Request
from fastapi.responses import Response
from starlette.types import Receive, Scope, Send

from llava.serve.middleware.request_end import CLIENT_CLOSED
from llava.serve.protocol.errors import RequestFailure

T = TypeVar("T")


async def while_connected(request: Request, work: Awaitable[T]) -> T:
    """Return the result of ``work``, which is cancelled when the client disconnects. Raises RequestFailure then.

    The request's body must have been read.
    """

    async def disconnect() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working, disconnected = asyncio.ensure_future(work), asyncio.ensure_future(disconnect())
    try:
        await asyncio.wait({working, disconnected}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise RequestFailure(CLIENT_CLOSED, "client_gone", "the client disconnected before it was answered")
        return working.result()
    finally:
        for task in (working, disconnected):
            task.cancel()
        await asyncio.gather(working, disconnected, return_exceptions=True)


def release_body(request: Request) -> None:
    """Drop the body that starlette keeps with a request until its reply has ended: the images of all that wait."""
    for kept in ("_body", "_json"):
        vars(request).pop(kept, None)


class AwaitedJson(Response):
    """Reply whose JSON is awaited as it is sent, when the endpoint, and so the parsed body, is done.

    make: returns the JSON; cancelled where the client leaves. What it raises becomes the reply. close: runs at the end.
    """

    def __init__(self, make: Callable[[], Awaitable[str]], close: Callable[[], Awaitable[None]]) -> None:
        super().__init__(media_type="application/json")
        self._make, self._close = make, close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Await the JSON, and send it."""
        try:
            content = await while_connected(Request(scope, receive), self._make())
        finally:
            with anyio.CancelScope(shield=True):
                await self._close()
        await Response(content, media_type=self.media_type)(scope, receive, send)
