"""ASGI middleware that limits the files which visitors of the demo leave on its disk, all together."""

from __future__ import annotations

from pathlib import Path

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from llava.files.images import MIB

MAX_BYTES = 1024 * MIB
MAX_FILES = 10_000
KEPT_S = 3600  # how long a file is kept
LOOK_S = 60  # how often old files are looked for


class UploadQuota:
    """Refuses an upload that would make the files in ``folder`` more than ``max_bytes`` or ``max_files``."""

    def __init__(self, app: ASGIApp, folder: Path, max_bytes: int = MAX_BYTES, max_files: int = MAX_FILES) -> None:
        self.app, self.folder = app, folder
        self.max_bytes, self.max_files = max_bytes, max_files
        self._arriving = 0  # bytes of uploads that are not complete

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request: pass it on, unless it is an upload too many."""
        if scope["type"] != "http" or scope["method"] != "POST" or not scope["path"].rstrip("/").endswith("/upload"):
            await self.app(scope, receive, send)
            return
        size = Headers(scope=scope).get("Content-Length", "")
        if not size.isdecimal():
            await _refuse(411, "an upload states its size: send the header Content-Length")(scope, receive, send)
            return
        if not self._fits(int(size)):
            message = "the demo keeps no more files now; please try again in an hour"
            await _refuse(507, message)(scope, receive, send)
            return
        self._arriving += int(size)
        try:
            await self.app(scope, receive, send)
        finally:
            self._arriving -= int(size)

    def _fits(self, size: int) -> bool:
        sizes = [path.stat().st_size for path in self.folder.rglob("*") if path.is_file()]
        return len(sizes) < self.max_files and sum(sizes) + self._arriving + size <= self.max_bytes


def _refuse(status: int, message: str) -> JSONResponse:
    return JSONResponse({"detail": message}, status, {"Connection": "close"})
