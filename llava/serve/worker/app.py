"""A worker's HTTP endpoints."""

import contextlib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any

from fastapi import FastAPI, Request
from pydantic import create_model

from llava.plugins import hooks, merged
from llava.serve.hosting.monitoring import add_monitoring_routes
from llava.serve.middleware.body_limits import BodyLimits
from llava.serve.middleware.closing_stream import ClosingStream
from llava.serve.middleware.draining import MONITORING
from llava.serve.middleware.stack import Middleware
from llava.serve.middleware.while_connected import release_body, while_connected
from llava.serve.protocol import errors
from llava.serve.protocol.errors import STREAM_REPLIES, request_id_of
from llava.serve.protocol.schemas import GenerationBody, WorkerStatus
from llava.serve.worker.service import GENERATE, WorkerService

STATUS = "/worker_get_status"
QUIET = (*MONITORING, STATUS)


def request_model() -> type[GenerationBody]:
    """Return the type of a request's body: upstream's fields and those of the plug-ins."""
    return create_model("GenerationRequest", __base__=GenerationBody, **merged(hooks().request_fields()))


def create_app(
    service: WorkerService,
    limits: BodyLimits | None = None,
    alongside: AbstractAsyncContextManager[Any] | None = None,
    middleware: Middleware | None = None,
) -> FastAPI:
    """Make the worker's application. ``alongside`` is entered while it runs: the heartbeat.

    middleware: ``worker_middleware`` of the service, by default without names.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.engine.start()
        async with alongside or contextlib.nullcontext():
            yield
        service.queue.close()
        service.images.close()

    app = FastAPI(title="LLaVA model worker", docs_url=None, redoc_url=None, lifespan=lifespan)
    middleware = middleware or worker_middleware(service, limits)
    middleware.install(app)
    errors.install(app)
    _add_generation_routes(app, service)
    registries = (service.registry, middleware.metrics.registry)
    add_monitoring_routes(app, registries, service.failure, lambda: ready_state(service))
    return app


def worker_middleware(
    service: WorkerService, limits: BodyLimits | None = None, names: tuple[str, ...] | None = None
) -> Middleware:
    """Return the middleware of a worker, which reports the ends of requests to its service."""
    return Middleware(
        service.lifecycle,
        limits or BodyLimits(),
        names,
        quiet=QUIET,
        open_paths=(*MONITORING, STATUS),
        on_end=service.record_end,
    )


def _add_generation_routes(app: FastAPI, service: WorkerService) -> None:
    """Add the endpoints that clients and the controller call."""
    body_model = request_model()

    @app.post(GENERATE, response_model=None, responses=STREAM_REPLIES)
    async def worker_generate_stream(body: body_model, request: Request) -> ClosingStream:  # type: ignore[valid-type]
        """Answer a question about images."""
        stream = await while_connected(request, service.accept(body, request_id_of(request) or ""))
        release_body(request)

        async def close() -> None:
            await service.close(stream)

        return ClosingStream(stream.chunks(service.policy), close)

    @app.post(STATUS)
    async def worker_get_status() -> WorkerStatus:
        """Return models, speed and queue length, as the controller needs them."""
        return service.status()


async def ready_state(service: WorkerService) -> dict[str, Any]:
    """Return what ``/ready`` says: whether requests may be sent, the model, and how busy it is."""
    load, loaded = service.queue.load(), service.loaded
    return {
        "reason": service.not_ready_reason(),
        "model": loaded.name,
        "conv_mode": loaded.conv_mode,
        "context_length": loaded.context_length,
        "images": loaded.takes_images,
        "running": load.running,
        "waiting": load.waiting,
        **service.policy.state(),
    }
