"""ASGI middleware that gives every request an id (in logs, reply header and failures) and logs its outcome."""

from __future__ import annotations

import logging
import re
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llava.serve.middleware.body_limits import UnreadAnswer
from llava.serve.protocol.errors import ErrorFormat, RequestFailure

log = logging.getLogger(__name__)

HEADER = "X-Request-Id"
_USABLE = re.compile(r"^[A-Za-z0-9._-]{1,64}$")


class RequestIds:
    """ASGI middleware that names, logs and completes requests.

    It keeps the client's ``X-Request-Id`` where that is a plain word and makes an id where it is not; it answers 500
    for an exception that nothing else has handled. ``quiet``: paths that are requested all the time, logged for
    debugging only. ``error_format`` makes the reply to a failure.
    """

    def __init__(
        self, app: ASGIApp, quiet: tuple[str, ...] = (), error_format: ErrorFormat = RequestFailure.response
    ) -> None:
        self.app = app
        self.quiet = quiet
        self.error_format = error_format

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request, and log its status and time."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get(HEADER, "")
        request_id = given if _USABLE.match(given) else uuid.uuid4().hex[:16]
        scope.setdefault("state", {})["request_id"] = request_id
        start = time.perf_counter()
        status = await self._handle(request_id, scope, receive, send)
        level = logging.DEBUG if scope["path"] in self.quiet and status < 400 else logging.INFO
        elapsed_ms = (time.perf_counter() - start) * 1000
        log.log(level, "request %s: %s %r %d %.0f ms", request_id, scope["method"], scope["path"], status, elapsed_ms)

    async def _handle(self, request_id: str, scope: Scope, receive: Receive, send: Send) -> int:
        """Run the application; return the status of its reply, 0 where none was sent."""
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[HEADER] = request_id
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except UnreadAnswer as error:  # the client reads nothing: it cannot be sent a failure
            log.warning("request %s: %s", request_id, error)
        except Exception:
            log.exception("request %s: failed", request_id)
            if status:
                raise
            failure = RequestFailure(500, "internal", f"the server failed; its log says why under {request_id}")
            await self.error_format(failure, request_id)(scope, receive, send_with_id)
        return status
