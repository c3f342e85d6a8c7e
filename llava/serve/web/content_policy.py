"""ASGI middleware that forbids the demo's page to load anything from other addresses, whatever an answer holds."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

OWN = "'self' data: blob:"
POLICY = "; ".join(
    [
        f"default-src {OWN}",  # of what is not named below: workers, manifests, and the like
        "script-src 'self' blob: 'unsafe-inline' 'unsafe-eval'",  # Gradio's own
        f"img-src {OWN}",
        f"media-src {OWN}",
        f"font-src {OWN}",
        f"connect-src {OWN}",
        f"frame-src {OWN}",
        f"style-src {OWN} 'unsafe-inline'",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
    ]
)


class ContentPolicy:
    """Adds the header ``Content-Security-Policy`` to every reply."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""

        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Content-Security-Policy"] = POLICY
            await send(message)

        await self.app(scope, receive, send_with_policy if scope["type"] == "http" else send)
