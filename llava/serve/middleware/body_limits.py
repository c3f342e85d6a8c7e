"""ASGI middleware that limits requests: encoding, size, depth and arrival time of a body, reading time of a reply."""

from __future__ import annotations

from dataclasses import dataclass

import anyio
import anyio.to_thread
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llava.errors import OptionError
from llava.flags import flag
from llava.serve.middleware.json_text import check_headers, check_text
from llava.serve.protocol.errors import ErrorFormat, RequestFailure, refuse

MIB = 1024 * 1024
READ_BEFORE_REFUSAL = 4  # times the limit: up to here a body is read to its end, so that the client reads the refusal
ARRIVING_AT_ONCE = 32  # times the limit: what bodies that have not arrived completely may hold, all together
LARGE_BYTES = 256 * 1024  # larger bodies are checked in a thread


@dataclass(frozen=True)
class BodyLimits:
    """Limits of every request."""

    max_bytes: int = flag(
        32 * MIB, "maximum size of a request's body, in MiB", name="--max-body-mib", unit=MIB, metavar="MIB"
    )
    max_depth: int = flag(
        16, "maximum nesting of objects and lists in a request's JSON", name="--max-json-depth", metavar="LEVELS"
    )
    body_timeout_s: float = flag(
        30.0, "maximum time until a request's body has arrived, in seconds", name="--body-timeout", metavar="SECONDS"
    )
    send_timeout_s: float = flag(
        60.0,
        "maximum time that a client may leave a piece of its answer unread, in seconds; then its request ends",
        name="--send-timeout",
        metavar="SECONDS",
    )

    def __post_init__(self) -> None:
        checks = {
            "--max-body-mib": self.max_bytes / MIB,
            "--max-json-depth": self.max_depth,
            "--body-timeout": self.body_timeout_s,
            "--send-timeout": self.send_timeout_s,
        }
        for name, value in checks.items():
            if not value > 0:  # NaN is refused, too
                raise OptionError(f"{name} is {value:g}; expected a number above 0")


class ClientDisconnected(Exception):
    """The client disconnected before its request was read."""


class UnreadAnswer(Exception):
    """The client left a piece of its answer unread for too long."""


class LimitedBodies:
    """ASGI middleware that reads each body completely, within the limits, before the application sees the request.

    ``error_format`` makes the reply to a request that is refused. ``streamed``: paths whose bodies the application
    reads as they arrive, which are limited elsewhere.
    """

    def __init__(
        self,
        app: ASGIApp,
        limits: BodyLimits,
        error_format: ErrorFormat = RequestFailure.response,
        streamed: tuple[str, ...] = (),
    ) -> None:
        self.app = app
        self.limits = limits
        self.error_format = error_format
        self.streamed = streamed
        self._arriving = 0  # bytes of bodies that have not arrived completely

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request: refuse it, or pass it on with its body read."""
        if scope["type"] != "http" or scope["path"] in self.streamed:
            await self.app(scope, receive, send)
            return
        send_in_time = self._with_timeout(send)
        try:
            check_headers(Headers(scope=scope))
            body = await self._read(receive)
            if len(body) > LARGE_BYTES:
                await anyio.to_thread.run_sync(check_text, body, self.limits.max_depth)
            else:
                check_text(body, self.limits.max_depth)
        except ClientDisconnected:
            return
        except RequestFailure as failure:
            await refuse(failure, self.error_format, scope, receive, send_in_time)
            return
        replay = _replay(body, receive)
        del body  # the application may drop it while it answers
        await self.app(scope, replay, send_in_time)

    async def _read(self, receive: Receive) -> bytes:
        pieces: list[bytes] = []
        try:
            return await self._joined(receive, pieces)
        finally:
            self._arriving -= sum(map(len, pieces))

    async def _joined(self, receive: Receive, pieces: list[bytes]) -> bytes:
        """Return the body; what has arrived of it is in ``pieces``, and counts as arriving."""
        limit, size = self.limits.max_bytes, 0
        too_large = RequestFailure(413, "too_large", f"the body is larger than {limit:,} bytes; send less, or smaller")
        with anyio.move_on_after(self.limits.body_timeout_s):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnected
                piece = message.get("body", b"")
                size += len(piece)
                if size <= limit:
                    pieces.append(piece)
                    self._arriving += len(piece)
                    if self._arriving > ARRIVING_AT_ONCE * limit:
                        text = "the server reads as many bodies as it can hold; please ask again later"
                        raise RequestFailure(503, "too_many_connections", text, retry_after=1)
                elif size > READ_BEFORE_REFUSAL * limit:
                    raise too_large
                if not message.get("more_body", False):
                    if size > limit:
                        raise too_large
                    return b"".join(pieces)
        seconds = self.limits.body_timeout_s
        raise RequestFailure(408, "timeout", f"the request's body did not arrive within {seconds:g} s")

    def _with_timeout(self, send: Send) -> Send:
        async def send_in_time(message: Message) -> None:
            with anyio.move_on_after(self.limits.send_timeout_s) as scope:
                await send(message)
            if scope.cancelled_caught:
                raise UnreadAnswer(f"the client left its answer unread for {self.limits.send_timeout_s:g} s")

        return send_in_time


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a ``receive`` that gives the body as one message, then what really comes: the client's disconnect.

    It keeps no body that it has given.
    """
    unread = [body]

    async def replay() -> Message:
        if not unread:
            return await receive()
        return {"type": "http.request", "body": unread.pop(), "more_body": False}

    return replay
