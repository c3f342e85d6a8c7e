"""ASGI middleware that passes on what the demo's own page asks of Gradio, and nothing else that Gradio offers."""

from __future__ import annotations

import json
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llava.serve.middleware.request_end import current_end
from llava.serve.protocol.errors import RequestFailure

API = "/gradio_api/"
FILE = f"{API}file="
UPLOAD = f"{API}upload"
PAGE_OPEN = f"{API}heartbeat/"  # a request that lasts as long as a page is open
CALLS = tuple(API + path for path in ("queue/join", "run/predict", "upload", "cancel", "reset"))  # all that is posted
READ = tuple(
    API + path
    for path in ("info", "startup-events", "queue/data", "queue/status", "upload_progress", "theme.css", "app_id")
)
READ_BELOW = (PAGE_OPEN, FILE, f"{API}file/")
URLS = ("http:", "https:")


class PageRequests:
    """Refuses Gradio's endpoints that the page does not use, and files that are URLs, which Gradio would fetch.

    Bodies of calls must have been read before, within limits: ``LimitedBodies`` does that.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request: refuse it with 404 or 400, or pass it on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            await self._handle(scope, receive, send)
        except RuntimeError as error:
            if not isinstance(error.__cause__, HTTPException):
                raise
            # Gradio raises it in a stream that has begun, such as for the conversation of another process
            status, why = error.__cause__.status_code, error.__cause__.detail
            current_end().fail(RequestFailure(status, "bad_request", f"the stream was ended: {why}"))
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not is_asked_by_page(scope["method"], scope["path"]):
            await _refuse(404, "the demo has no such page")(scope, receive, send)
        elif scope["method"] == "POST" and not scope["path"].startswith(UPLOAD):
            message = await receive()
            if holds_url(_parsed(message.get("body", b""))):
                await _refuse(400, "a file is a URL; send the file itself")(scope, receive, send)
                return
            await self.app(scope, _again(message, receive), send)
        else:
            await self.app(scope, receive, send)


def is_asked_by_page(method: str, path: str) -> bool:
    """Return whether the demo's page makes such a request."""
    if method not in ("GET", "HEAD"):
        return method == "POST" and path.rstrip("/") in CALLS
    if path.startswith(FILE) and path.removeprefix(FILE).strip().lower().startswith(URLS):
        return False
    return not path.startswith(API) or path.rstrip("/") in READ or path.startswith(READ_BELOW)


def holds_url(value: Any) -> bool:
    """Return whether parsed JSON has, anywhere, a file in Gradio's form whose path is an http(s) URL."""
    if isinstance(value, dict):
        path = value.get("path")
        if isinstance(path, str) and path.strip().lower().startswith(URLS):
            return True
        value = list(value.values())
    return isinstance(value, list) and any(map(holds_url, value))


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:  # for Gradio to refuse
        return None


def _again(message: Message, receive: Receive) -> Receive:
    unread = [message]

    async def receive_again() -> Message:
        return unread.pop() if unread else await receive()

    return receive_again


def _refuse(status: int, message: str) -> JSONResponse:
    current_end().fail(RequestFailure(status, "bad_request", message))
    return JSONResponse({"detail": message}, status)
