"""Knows the workers and forwards each request to one of them: ``python -m llava.serve.controller``."""

import argparse
import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from fastapi import FastAPI, Request

from llava.constants import CONTROLLER_HEART_BEAT_EXPIRATION
from llava.flags import add_dataclass_flags, from_flags
from llava.program import run_program
from llava.serve.hosting.lifecycle import Lifecycle
from llava.serve.hosting.monitoring import add_monitoring_routes
from llava.serve.hosting.options import HostingOptions
from llava.serve.hosting.server import end_process, make_server, run_server
from llava.serve.hosting.sockets import bind
from llava.serve.middleware import registration_token
from llava.serve.middleware.allowed_hosts import allowed_names
from llava.serve.middleware.body_limits import BodyLimits
from llava.serve.middleware.closing_stream import ClosingStream
from llava.serve.middleware.draining import MONITORING
from llava.serve.middleware.server_log import set_up_logging
from llava.serve.middleware.stack import Middleware
from llava.serve.middleware.while_connected import release_body, while_connected
from llava.serve.protocol import errors
from llava.serve.protocol.errors import REPLIES, STREAM_REPLIES, RequestFailure, request_id_of
from llava.serve.protocol.http_client import new_client
from llava.serve.protocol.schemas import (
    HeartBeat,
    Registration,
    RoutedRequest,
    UnregisterRequest,
    WorkerAddressRequest,
    WorkerStatus,
)
from llava.serve.routing.registrants import check_operator, check_registrant
from llava.serve.routing.relay import Relay, ask_status
from llava.serve.routing.worker_registry import DISPATCH_METHODS, SHORTEST_QUEUE, WorkerRegistry

WORKERS = ("/receive_heart_beat", "/unregister_worker", "/worker_get_status")  # answered while it drains, too
QUIET = (*MONITORING, "/receive_heart_beat", "/worker_get_status")


@dataclass
class Controller:
    """State that the endpoints share. ``client`` is for tests; by default the application makes one, and closes it."""

    registry: WorkerRegistry = field(
        default_factory=lambda: WorkerRegistry(SHORTEST_QUEUE, CONTROLLER_HEART_BEAT_EXPIRATION)
    )
    limits: BodyLimits = field(default_factory=BodyLimits)
    token: str | None = None
    worker_timeout_s: float = 120.0
    client: httpx.AsyncClient | None = None

    lifecycle: Lifecycle = field(default_factory=Lifecycle)

    def worker_name(self, request: Request, name: str) -> str:
        """Return the checked worker address of a request that may speak for workers. Raises RequestFailure (403)."""
        return check_registrant(request, self.token, name)

    def health(self) -> dict[str, Any]:
        """Return what ``/health`` says in addition: how many workers are registered."""
        return {"workers": len(self.registry.workers())}

    async def state(self) -> dict[str, Any]:
        """Return what ``/ready`` says: the models that can be asked."""
        models = self.registry.models()
        reason = self.lifecycle.not_ready_reason or (None if models else "no worker is registered")
        return {"reason": reason, "models": models}

    def middleware(self, names: tuple[str, ...] | None = None) -> Middleware:
        """Return the middleware of the controller's application; ``names``: by which it may be addressed."""
        return Middleware(self.lifecycle, self.limits, names, quiet=QUIET, open_paths=(*MONITORING, *WORKERS))


def create_app(controller: Controller | None = None, middleware: Middleware | None = None) -> FastAPI:
    """Make the controller's ASGI application. ``middleware``: by default the controller's, without names."""
    controller = controller or Controller()
    client = controller.client or new_client()
    relay = Relay(controller.registry, client, controller.worker_timeout_s)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await client.aclose()

    app = FastAPI(title="LLaVA controller", docs_url=None, redoc_url=None, lifespan=lifespan)
    middleware = middleware or controller.middleware()
    middleware.install(app)
    errors.install(app)
    _add_worker_routes(app, controller, client)
    _add_status_routes(app, controller, client)
    _add_monitoring(app, controller, middleware)
    _add_client_routes(app, controller.registry, relay)
    return app


def _add_worker_routes(app: FastAPI, controller: Controller, client: httpx.AsyncClient) -> None:
    """Add the endpoints that workers call."""
    registry = controller.registry

    @app.post("/register_worker", responses=REPLIES)
    async def register_worker(body: Registration, request: Request) -> None:
        """Register a worker."""
        name = controller.worker_name(request, body.worker_name)
        status = body.worker_status or await ask_status(client, name)
        if status is None:
            raise RequestFailure(502, "worker_unreachable", f"the worker at {name} gives no status; is it running?")
        registry.register(name, body.check_heart_beat, status)

    @app.post("/receive_heart_beat", responses=REPLIES)
    async def receive_heart_beat(body: HeartBeat, request: Request) -> dict[str, bool]:
        """Record a worker's heartbeat; `exist` is false where the worker should register."""
        name = controller.worker_name(request, body.worker_name)
        return {"exist": registry.receive_heartbeat(name, body.queue_length)}

    @app.post("/unregister_worker", responses=REPLIES)
    async def unregister_worker(body: UnregisterRequest, request: Request) -> dict[str, bool]:
        """Send no more requests to a worker; `exist` says whether it was registered."""
        return {"exist": registry.forget(controller.worker_name(request, body.worker_name), "it is shutting down")}


def _add_monitoring(app: FastAPI, controller: Controller, middleware: Middleware) -> None:
    registries = controller.registry.metrics(), middleware.metrics.registry
    lifecycle = controller.lifecycle
    add_monitoring_routes(app, registries, lambda: lifecycle.failure, controller.state, controller.health)


def _add_status_routes(app: FastAPI, controller: Controller, client: httpx.AsyncClient) -> None:
    """Add the endpoints for whoever looks after the servers."""
    registry = controller.registry

    @app.post("/refresh_all_workers", responses=REPLIES)
    async def refresh_all_workers(request: Request) -> None:
        """Ask every worker for its status, and forget those that give none."""
        check_operator(request, controller.token)
        asked = registry.workers()
        statuses = await asyncio.gather(*(ask_status(client, name) for name in asked))
        for (name, worker), status in zip(asked.items(), statuses, strict=True):
            if status is None:
                registry.forget(name, "gives no status")
            elif name in registry.workers():  # else it has left meanwhile
                registry.register(name, worker.check_heart_beat, status)

    @app.post("/worker_get_status", responses=REPLIES)
    async def worker_get_status() -> WorkerStatus:
        """Return the status of all workers combined, so that a controller can be the worker of another controller."""
        return registry.total()


def _add_client_routes(app: FastAPI, registry: WorkerRegistry, relay: Relay) -> None:
    """Add the endpoints that clients call."""

    @app.post("/list_models", responses=REPLIES)
    async def list_models() -> dict[str, list[str]]:
        """List the models that can be asked."""
        return {"models": registry.models()}

    @app.post("/get_worker_address", responses=REPLIES)
    async def get_worker_address(body: WorkerAddressRequest) -> dict[str, str]:
        """Return the worker that the next request for a model should go to; empty where there is none."""
        return {"address": registry.choose(body.model) or ""}

    @app.post("/worker_generate_stream", response_model=None, responses=STREAM_REPLIES)
    async def worker_generate_stream(body: RoutedRequest, request: Request) -> ClosingStream:
        """Forward a request to one of the model's workers, and stream its answer."""
        request_id = request_id_of(request) or ""
        opening = relay.open(body.model, await request.body(), request_id)
        address, response = await while_connected(request, opening)
        release_body(request)
        return ClosingStream(relay.frames(address, response, request_id), response.aclose)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line (upstream's flags, and ours)."""
    parser = argparse.ArgumentParser(prog="python -m llava.serve.controller", description=__doc__)
    parser.add_argument("--host", default="localhost", help="address to listen at; 0.0.0.0 listens on every network")
    parser.add_argument("--port", type=int, default=21001, help="port to listen at; 0 for a free one, which is logged")
    parser.add_argument(
        "--dispatch-method",
        choices=DISPATCH_METHODS,
        default=SHORTEST_QUEUE,
        help="how a worker is chosen: drawn by speed, or the shortest queue for its speed",
    )
    parser.add_argument(
        "--heart-beat-expiration",
        type=float,
        metavar="SECONDS",
        default=CONTROLLER_HEART_BEAT_EXPIRATION,
        help="time without a heartbeat after which a worker is forgotten, in seconds",
    )
    parser.add_argument(
        "--worker-timeout",
        type=float,
        metavar="SECONDS",
        default=120.0,
        help="maximum wait for the next piece of a worker's answer, in seconds",
    )
    registration_token.add_flag(parser)
    add_dataclass_flags(parser, BodyLimits)
    add_dataclass_flags(parser, HostingOptions)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the program; return the exit code, 2 for a user error."""
    args = parse_arguments(arguments)
    set_up_logging()
    return run_program(lambda: serve(args))


def serve(args: argparse.Namespace) -> int:
    """Answer requests until a signal ends the process; return the exit code. Raises a ``LlavaError``."""
    controller = Controller(
        WorkerRegistry(args.dispatch_method, args.heart_beat_expiration),
        from_flags(BodyLimits, args),
        registration_token.token_of(args),
        args.worker_timeout,
    )
    options = from_flags(HostingOptions, args)
    middleware = controller.middleware(allowed_names(args.host, options.extra_hosts))
    sockets = bind(args.host, args.port)
    app = create_app(controller, middleware)
    return run_server(make_server(app, middleware, options, args.host, controller.limits), sockets)


if __name__ == "__main__":
    end_process(main())
