"""A streamed reply that is always cleaned up after: also when the client leaves before its first piece."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable

import anyio
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send


class ClosingStream(StreamingResponse):
    """``close`` runs once the reply has ended, however it did."""

    media_type = "application/octet-stream"

    def __init__(self, content: AsyncIterable[bytes], close: Callable[[], Awaitable[None]]) -> None:
        super().__init__(content)
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            with anyio.CancelScope(shield=True):
                await self._close()
