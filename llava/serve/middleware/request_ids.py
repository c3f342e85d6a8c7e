"""A name for every request, in the logs, in the reply's header and in its failures."""

from __future__ import annotations

import logging
import re
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llava.serve.middleware.body_limits import UnreadAnswer
from llava.serve.protocol.errors import FormOf, RequestFailure

log = logging.getLogger(__name__)

HEADER = "X-Request-Id"
_USABLE = re.compile(r"^[A-Za-z0-9._-]{1,64}$")


class RequestIds:
    """ASGI middleware: keeps the client's ``X-Request-Id`` where it is a plain word, makes one where it is not; logs
    each request, and every failure that nothing else has caught."""

    def __init__(self, app: ASGIApp, quiet: tuple[str, ...] = (), form: FormOf = RequestFailure.response) -> None:
        self.app = app
        self.quiet = quiet  # paths that are asked for all the time
        self.form = form  # of a failure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get(HEADER, "")
        request_id = given if _USABLE.match(given) else uuid.uuid4().hex[:16]
        scope.setdefault("state", {})["request_id"] = request_id
        status, start = 0, time.perf_counter()

        async def named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[HEADER] = request_id
            await send(message)

        try:
            await self.app(scope, receive, named)
        except UnreadAnswer as error:  # there is nobody to tell
            log.warning("request %s: %s", request_id, error)
        except Exception:
            log.exception("request %s: failed", request_id)
            if status:
                raise
            failure = RequestFailure(500, "internal", f"the server failed; its log says why under {request_id}")
            await self.form(failure, request_id)(scope, receive, named)
            status = 500
        level = logging.DEBUG if scope["path"] in self.quiet and status < 400 else logging.INFO
        elapsed_ms = (time.perf_counter() - start) * 1000
        log.log(level, "request %s: %s %r %d %.0f ms", request_id, scope["method"], scope["path"], status, elapsed_ms)
