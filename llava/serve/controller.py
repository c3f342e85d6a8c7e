"""Knows the workers and forwards each request to one of them: ``python -m llava.serve.controller``."""

import argparse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI, Request

from llava.constants import CONTROLLER_HEART_BEAT_EXPIRATION
from llava.errors import OptionError
from llava.flags import add_dataclass_flags, from_flags
from llava.program import run_program
from llava.serve.middleware import registration_token
from llava.serve.middleware.body_limits import BodyLimits, LimitedBodies
from llava.serve.middleware.closing_stream import ClosingStream
from llava.serve.middleware.request_ids import RequestIds
from llava.serve.middleware.server_log import set_up_logging
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
from llava.serve.routing.relay import Relay, ask_status
from llava.serve.routing.worker_address import checked_address
from llava.serve.routing.worker_registry import DISPATCH_METHODS, SHORTEST_QUEUE, WorkerRegistry

QUIET = ("/receive_heart_beat", "/health", "/worker_get_status")


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

    def worker_name(self, request: Request, name: str) -> str:
        """Return the checked worker address of a request that may speak for workers. Raises RequestFailure (403)."""
        if not registration_token.fits(self.token, request.headers.get("Authorization")):
            raise RequestFailure(403, "forbidden", "the registration token is missing or wrong")
        try:
            return checked_address(name, loopback_only=self.token is None)
        except OptionError as error:
            raise RequestFailure(403, "forbidden", str(error)) from error


def create_app(controller: Controller | None = None) -> FastAPI:
    """Make the controller's ASGI application."""
    controller = controller or Controller()
    client = controller.client or new_client()
    relay = Relay(controller.registry, client, controller.worker_timeout_s)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await client.aclose()

    app = FastAPI(title="LLaVA controller", docs_url=None, redoc_url=None, lifespan=lifespan)
    app.add_middleware(LimitedBodies, limits=controller.limits)
    app.add_middleware(RequestIds, quiet=QUIET)
    errors.install(app)
    _add_worker_routes(app, controller, client)
    _add_status_routes(app, controller.registry, client)
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


def _add_status_routes(app: FastAPI, registry: WorkerRegistry, client: httpx.AsyncClient) -> None:
    """Add the endpoints for whoever looks after the servers."""

    @app.post("/refresh_all_workers", responses=REPLIES)
    async def refresh_all_workers() -> None:
        """Ask every worker for its status, and forget those that give none."""
        for name, worker in registry.workers().items():
            status = await ask_status(client, name)
            if status is None:
                registry.forget(name, "gives no status")
            else:
                registry.register(name, worker.check_heart_beat, status)

    @app.post("/worker_get_status", responses=REPLIES)
    async def worker_get_status() -> WorkerStatus:
        """Return the status of all workers combined, so that a controller can be the worker of another controller."""
        return registry.total()

    @app.get("/health")
    async def health() -> dict[str, Any]:
        """Say that the controller runs, and how many workers are registered."""
        return {"status": "ok", "workers": len(registry.workers())}


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
        address, response = await relay.open(body.model, await request.body(), request_id)
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
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the program; return the exit code, 2 for a user error."""
    args = parse_arguments(arguments)
    set_up_logging()
    return run_program(lambda: serve(args))


def serve(args: argparse.Namespace) -> None:
    """Answer requests until the process is stopped."""
    controller = Controller(
        WorkerRegistry(args.dispatch_method, args.heart_beat_expiration),
        from_flags(BodyLimits, args),
        registration_token.token_of(args),
        args.worker_timeout,
    )
    uvicorn.run(create_app(controller), host=args.host, port=args.port, log_config=None, access_log=False)


if __name__ == "__main__":
    raise SystemExit(main())
