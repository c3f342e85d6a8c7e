"""A worker's endpoints."""

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
from llava.serve.protocol import errors as failures
from llava.serve.protocol.errors import STREAM_REPLIES, request_id_of
from llava.serve.protocol.schemas import GenerationBody, WorkerStatus
from llava.serve.worker.service import WorkerService

QUIET = ("/health", "/ready", "/metrics", "/worker_get_status")


def request_model() -> type[GenerationBody]:
    """A request's body: upstream's fields and the plug-ins'."""
    return create_model("GenerationRequest", __base__=GenerationBody, **merged(hooks().request_fields()))


def create_app(
    service: WorkerService,
    limits: BodyLimits | None = None,
    alongside: AbstractAsyncContextManager[Any] | None = None,
) -> FastAPI:
    """The worker as an application. ``alongside`` is entered while it runs: the heart beat."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.engine.start()
        async with alongside or contextlib.nullcontext():
            yield
        service.queue.close()

    app = FastAPI(title="LLaVA model worker", docs_url=None, redoc_url=None, lifespan=lifespan)
    app.add_middleware(LimitedBodies, limits=limits or BodyLimits())
    app.add_middleware(RequestIds, quiet=QUIET)
    failures.install(app)
    _add_answer_routes(app, service)
    _add_watch_routes(app, service)
    return app


def _add_answer_routes(app: FastAPI, service: WorkerService) -> None:
    """What clients and the controller call."""
    body_model = request_model()

    @app.post("/worker_generate_stream", response_model=None, responses=STREAM_REPLIES)
    async def worker_generate_stream(body: body_model, request: Request) -> ClosingStream:  # type: ignore[valid-type]
        """Answer a question about pictures."""
        stream = await service.accept(body, request_id_of(request) or "")

        async def close() -> None:
            await service.close(stream)

        return ClosingStream(stream.chunks(service.policy, service.metrics), close)

    @app.post("/worker_get_status")
    async def worker_get_status() -> WorkerStatus:
        """What the controller needs to know."""
        return service.status()


def _add_watch_routes(app: FastAPI, service: WorkerService) -> None:
    """What those who look after it call."""

    @app.get("/health")
    async def health() -> dict[str, str]:
        """The process answers."""
        return {"status": "ok"}

    @app.get("/ready", responses={503: {"description": "it takes no requests now"}})
    async def ready() -> JSONResponse:
        """Whether requests may be sent, and what for."""
        why, load, loaded = service.not_ready(), service.queue.load(), service.loaded
        facts = {
            "ready": why is None,
            "reason": why,
            "model": loaded.name,
            "conv_mode": loaded.conv_mode,
            "context_length": loaded.context_length,
            "images": loaded.takes_images,
            "running": load.running,
            "waiting": load.waiting,
        }
        return JSONResponse(facts, 200 if why is None else 503)

    @app.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """For Prometheus."""
        return Response(generate_latest(service.registry), media_type=CONTENT_TYPE_LATEST)
