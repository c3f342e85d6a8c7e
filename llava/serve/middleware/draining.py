"""ASGI middleware that counts the requests in flight, and refuses new ones while the server drains or has failed."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from llava.serve.hosting.lifecycle import Lifecycle
from llava.serve.protocol.errors import ErrorFormat, RequestFailure, refuse

MONITORING = ("/health", "/ready", "/metrics")


class Draining:
    """ASGI middleware that lets a server end without losing a request.

    ``open_paths`` are always answered, and waited for by nobody; one that ends with a slash stands for all below it.
    """

    def __init__(
        self,
        app: ASGIApp,
        lifecycle: Lifecycle,
        open_paths: tuple[str, ...] = MONITORING,
        error_format: ErrorFormat = RequestFailure.response,
    ) -> None:
        self.app = app
        self.lifecycle = lifecycle
        self.open_paths = open_paths
        self.error_format = error_format

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request: refuse it with 503, or pass it on and count it until its reply is complete."""
        if scope["type"] != "http" or self._is_open(scope["path"]):
            await self.app(scope, receive, send)
            return
        if (reason := self.lifecycle.not_ready_reason) is not None:
            failure = RequestFailure(503, "shutting_down", f"this server takes no requests: {reason}", retry_after=1)
            await refuse(failure, self.error_format, scope, receive, send)
            return
        self.lifecycle.in_flight += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.lifecycle.in_flight -= 1

    def _is_open(self, path: str) -> bool:
        return path in self.open_paths or path.startswith(tuple(open_ for open_ in self.open_paths if open_[-1] == "/"))
