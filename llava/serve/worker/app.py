"""A worker's HTTP endpoints."""

import contextlib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import create_model

from llava.plugins import hooks, merged
from llava.serve.middleware.body_limits import BodyLimits, LimitedBodies
from llava.serve.middleware.closing_stream import ClosingStream
from llava.serve.middleware.request_ids import RequestIds
from llava.serve.protocol import errors
from llava.serve.protocol.errors import STREAM_REPLIES, request_id_of
from llava.serve.protocol.schemas import GenerationBody, WorkerStatus
from llava.serve.worker.service import WorkerService

QUIET = ("/health", "/ready", "/metrics", "/worker_get_status")  # paths that are not logged


def request_model() -> type[GenerationBody]:
    """Return the type of a request's body: upstream's fields and those of the plug-ins."""
    return create_model("GenerationRequest", __base__=GenerationBody, **merged(hooks().request_fields()))


def create_app(
    service: WorkerService,
    limits: BodyLimits | None = None,
    alongside: AbstractAsyncContextManager[Any] | None = None,
) -> FastAPI:
    """Make the worker's application. ``alongside`` is entered while it runs: the heartbeat."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.engine.start()
        async with alongside or contextlib.nullcontext():
            yield
        service.queue.close()
        service.images.close()

    app = FastAPI(title="LLaVA model worker", docs_url=None, redoc_url=None, lifespan=lifespan)
    app.add_middleware(LimitedBodies, limits=limits or BodyLimits())
    app.add_middleware(RequestIds, quiet=QUIET)
    errors.install(app)
    _add_generation_routes(app, service)
    _add_monitoring_routes(app, service)
    return app


def _add_generation_routes(app: FastAPI, service: WorkerService) -> None:
    """Add the endpoints that clients and the controller call."""
    body_model = request_model()

    @app.post("/worker_generate_stream", response_model=None, responses=STREAM_REPLIES)
    async def worker_generate_stream(body: body_model, request: Request) -> ClosingStream:  # type: ignore[valid-type]
        """Answer a question about images."""
        stream = await service.accept(body, request_id_of(request) or "")
        release_body(request)

        async def close() -> None:
            await service.close(stream)

        return ClosingStream(stream.chunks(service.policy, service.metrics), close)

    @app.post("/worker_get_status")
    async def worker_get_status() -> WorkerStatus:
        """Return models, speed and queue length, as the controller needs them."""
        return service.status()


def release_body(request: Request) -> None:
    """Drop the body that starlette keeps with a request until its reply has ended: the images of all that wait."""
    for kept in ("_body", "_json"):
        vars(request).pop(kept, None)


def _add_monitoring_routes(app: FastAPI, service: WorkerService) -> None:
    """Add the endpoints that operators and monitoring call."""

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Say that the process answers."""
        return {"status": "ok"}

    @app.get("/ready", responses={503: {"description": "it takes no requests now"}})
    async def ready() -> JSONResponse:
        """Say whether requests may be sent, and describe the model."""
        reason, load, loaded = service.not_ready_reason(), service.queue.load(), service.loaded
        state = {
            "ready": reason is None,
            "reason": reason,
            "model": loaded.name,
            "conv_mode": loaded.conv_mode,
            "context_length": loaded.context_length,
            "images": loaded.takes_images,
            "running": load.running,
            "waiting": load.waiting,
        }
        return JSONResponse(state, 200 if reason is None else 503)

    @app.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Return the metrics in Prometheus' text format."""
        return Response(generate_latest(service.registry), media_type=CONTENT_TYPE_LATEST)
