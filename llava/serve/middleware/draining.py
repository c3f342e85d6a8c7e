"""ASGI middleware that counts the requests in flight, and refuses new ones while the server drains or has failed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import anyio
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llava.serve.hosting.lifecycle import Lifecycle
from llava.serve.middleware.request_end import current_end
from llava.serve.protocol.errors import ErrorFormat, RequestFailure, refuse

LastPiece = Callable[[RequestFailure, "str | None"], bytes]  # (failure, request id) -> end of a stream
MONITORING = ("/health", "/ready", "/metrics")


class Draining:
    """ASGI middleware that lets a server end without losing a request.

    ``open_paths`` are always answered, and waited for by nobody; one that ends with a slash stands for all below it,
    which last as long as their clients like: the lifecycle ends them.
    What the lifecycle abandons ends with a failure: ``error_format`` makes the reply, ``last_piece`` ends a stream.
    """

    def __init__(
        self,
        app: ASGIApp,
        lifecycle: Lifecycle,
        open_paths: tuple[str, ...] = MONITORING,
        error_format: ErrorFormat = RequestFailure.response,
        last_piece: LastPiece = RequestFailure.chunk,
    ) -> None:
        self.app = app
        self.lifecycle = lifecycle
        self.open_paths = open_paths
        self.error_format = error_format
        self.last_piece = last_piece

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request: refuse it with 503, or pass it on and count it until its reply is complete."""
        if scope["type"] != "http" or scope["path"] in self.open_paths:
            await self.app(scope, receive, send)
        elif self._is_visit(scope["path"]):
            await self._answer(scope, receive, send, self.lifecycle.visits)
        elif (reason := self.lifecycle.not_ready_reason) is not None:
            failure = RequestFailure(503, "shutting_down", f"this server takes no requests: {reason}", retry_after=1)
            await refuse(failure, self.error_format, scope, receive, send)
        else:
            self.lifecycle.in_flight += 1
            try:
                await self._answer(scope, receive, send, self.lifecycle.cancels)
            finally:
                self.lifecycle.in_flight -= 1

    async def _answer(self, scope: Scope, receive: Receive, send: Send, cancels: set[Callable[[], None]]) -> None:
        """Pass a request on; where one of ``cancels`` ends it, end its reply, too."""
        begun = open_ended = False

        async def send_and_note(message: Message) -> None:
            nonlocal begun, open_ended
            if message["type"] == "http.response.start":
                begun, open_ended = True, "content-length" not in Headers(raw=message["headers"])
            elif not message.get("more_body", False):
                open_ended = False
            await send(message)

        with _cancelled_by(cancels) as cancel_scope:
            await self.app(scope, receive, send_and_note)
        if not cancel_scope.cancelled_caught:
            return
        failure = RequestFailure(503, "shutting_down", "the server is shutting down and stopped the answer; ask again")
        is_visit = cancels is self.lifecycle.visits
        if is_visit:
            current_end().leave("the server has ended")
        if not begun:
            await refuse(failure, self.error_format, scope, receive, send)
            return
        current_end().fail(failure)
        if open_ended:  # else the client expects what was begun, and sees that it has no end
            last = b"" if is_visit else self.last_piece(failure, scope.get("state", {}).get("request_id"))
            await send({"type": "http.response.body", "body": last, "more_body": False})

    def _is_visit(self, path: str) -> bool:
        return path.startswith(tuple(open_ for open_ in self.open_paths if open_[-1] == "/"))


@contextlib.contextmanager
def _cancelled_by(cancels: set[Callable[[], None]]) -> Iterator[anyio.CancelScope]:
    """Run the block in a scope whose ``cancel`` is in the set meanwhile."""
    with anyio.CancelScope() as scope:
        cancels.add(scope.cancel)
        try:
            yield scope
        finally:
            cancels.discard(scope.cancel)
