"""ASGI middleware that gives every request an id (in logs, reply header and failures) and reports its end."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llava.serve.middleware.body_limits import UnreadAnswer
from llava.serve.middleware.request_end import CLIENT_CLOSED, RequestEnd, recording
from llava.serve.protocol.errors import ErrorFormat, RequestFailure

log = logging.getLogger(__name__)

HEADER = "X-Request-Id"
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH")
NO_HANDLER, OTHER = "none", "other"  # values of metrics' labels, whatever a client sends
_USABLE = re.compile(r"^[A-Za-z0-9._-]{1,64}$")
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160), 0x2028, 0x2029)}


class RequestIds:
    """ASGI middleware that names, completes and logs requests: the outermost one, which sees how each ends.

    It keeps the client's ``X-Request-Id`` where that is a plain word and makes an id where it is not; it answers 500
    for an exception that nothing else has handled. ``quiet``: paths that are requested all the time, logged for
    debugging only unless a request fails; None for all paths. ``error_format`` makes the reply to a failure. ``on_end``
    is called once for every request.
    """

    def __init__(
        self,
        app: ASGIApp,
        quiet: tuple[str, ...] | None = (),
        error_format: ErrorFormat = RequestFailure.response,
        on_end: Callable[[RequestEnd, float], None] = lambda end, elapsed_s: None,
    ) -> None:
        self.app = app
        self.quiet = quiet
        self.error_format = error_format
        self.on_end = on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request, and report its end: one line in the log, one call of ``on_end``."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get(HEADER, "")
        request_id = given if _USABLE.match(given) else uuid.uuid4().hex[:16]
        scope.setdefault("state", {})["request_id"] = request_id
        method, path = scope["method"], scope["path"]
        end = RequestEnd(method if method in METHODS else OTHER, handler_of(scope))
        start = time.perf_counter()
        try:
            with recording(end):
                await self._handle(end, request_id, scope, receive, send)
        finally:
            elapsed_s = time.perf_counter() - start
            self.on_end(end, elapsed_s)
            _log_end(
                end, f"request {request_id}: {method} {path!r}", elapsed_s, self.quiet is None or path in self.quiet
            )

    async def _handle(self, end: RequestEnd, request_id: str, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                end.status = message["status"]
                MutableHeaders(scope=message)[HEADER] = request_id
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                end.complete = True

        try:
            await self.app(scope, receive, send_with_id)
        except UnreadAnswer as error:  # the client reads nothing: it cannot be sent a failure
            end.leave(str(error))
        except asyncio.CancelledError:
            end.fail(RequestFailure(503, "shutting_down", "the server has ended before the reply was complete"))
            raise
        except Exception as error:  # noqa: BLE001 - logged with its traceback as the request's end
            failure = RequestFailure(500, "internal", f"the server failed; its log says why under {request_id}")
            end.fail(failure, error)
            if not end.status:
                await self.error_format(failure, request_id)(scope, receive, send_with_id)
        if not end.complete:
            end.leave("the client has disconnected")


def handler_of(scope: Scope) -> str:
    """Return the template of the route that a request goes to: a bounded number of values, whatever clients ask."""
    for route in getattr(scope.get("app"), "routes", ()):
        if route.matches(scope)[0] != Match.NONE:
            return getattr(route, "path", "") or NO_HANDLER
    return NO_HANDLER


def _log_end(end: RequestEnd, what: str, elapsed_s: float, quiet: bool) -> None:
    level = logging.DEBUG if quiet else logging.INFO
    if end.failed_status not in (None, CLIENT_CLOSED):
        level = logging.WARNING if end.error is None else logging.ERROR
    detail = f": {end.detail}".translate(_CONTROL) if end.detail else ""
    log.log(level, "%s %d %.0f ms%s", what, end.code, elapsed_s * 1000, detail, exc_info=end.error)
