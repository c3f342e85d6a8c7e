"""Adds the endpoints that operators and monitoring call: is it alive, does it take work, what has it done."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest


def add_monitoring_routes(
    app: FastAPI,
    registries: tuple[CollectorRegistry, ...],
    failure: Callable[[], str | None],
    state: Callable[[], Awaitable[Mapping[str, Any]]],
    health: Callable[[], Mapping[str, Any]] = dict,
) -> None:
    """Add ``/health``, ``/ready`` and ``/metrics``.

    failure: why the process is to be restarted, None where it works. state: the fields of ``/ready``; ``reason`` says
    why no requests should be sent, and is None where they may be. health: further fields of ``/health``.
    """

    @app.get("/health", responses={503: {"description": "it has failed and is to be restarted"}})
    async def alive() -> JSONResponse:
        """Say whether the process works; 503 where it is to be restarted."""
        reason = failure()
        if reason is not None:
            return JSONResponse({"status": "failed", "reason": reason, "text": reason}, 503)
        return JSONResponse({"status": "ok", **health()})

    @app.get("/ready", responses={503: {"description": "it takes no requests now"}})
    async def ready() -> JSONResponse:
        """Say whether requests may be sent, and why not."""
        fields = await state()
        reason = fields["reason"]
        if reason is not None:
            return JSONResponse({"ready": False, **fields, "text": reason}, 503, {"Retry-After": "1"})
        return JSONResponse({"ready": True, **fields})

    @app.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Return the metrics in Prometheus' text format."""
        text = b"".join(generate_latest(registry) for registry in registries)
        return Response(text, media_type=CONTENT_TYPE_LATEST)
