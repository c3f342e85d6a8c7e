"""ASGI middleware that limits the time in which a body arrives, for applications that read bodies as they come."""

from __future__ import annotations

import time

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llava.serve.middleware.request_end import current_end
from llava.serve.protocol.errors import RequestFailure


class TimedBodies:
    """ASGI middleware that ends a request whose body has not arrived ``timeout_s`` seconds after its head.

    The application sees a client that has disconnected. ``LimitedBodies`` does this and more for bodies that can be
    read completely before the application sees them; uploads of files cannot.
    """

    def __init__(self, app: ASGIApp, timeout_s: float) -> None:
        self.app = app
        self.timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request with a time limit for its body."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        deadline, complete = time.monotonic() + self.timeout_s, False

        async def receive_in_time() -> Message:
            nonlocal complete
            if complete:  # what follows is the client's disconnect, whenever it comes
                return await receive()
            with anyio.move_on_after(max(0.0, deadline - time.monotonic())):
                message = await receive()
                complete = not message.get("more_body", False)
                return message
            complete = True
            text = f"the request's body did not arrive within {self.timeout_s:g} s"
            current_end().fail(RequestFailure(408, "timeout", text))
            return {"type": "http.disconnect"}

        await self.app(scope, receive_in_time, send)
