"""Streamed reply that always cleans up, also when the client disconnects before the first piece."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable

import anyio
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send


class ClosingStream(StreamingResponse):
    """Streaming reply whose ``close`` runs once the reply has ended, for whatever reason."""

    media_type = "application/octet-stream"

    def __init__(self, content: AsyncIterable[bytes], close: Callable[[], Awaitable[None]]) -> None:
        super().__init__(content)
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream, then close it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            with anyio.CancelScope(shield=True):
                await self._close()
