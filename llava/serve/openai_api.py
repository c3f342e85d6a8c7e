"""Serves the models of a controller through an OpenAI-style API: ``python -m llava.serve.openai_api``."""

import argparse
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request, Security
from fastapi.responses import Response
from fastapi.security import HTTPBearer

from llava.flags import add_dataclass_flags, from_flags
from llava.program import run_program
from llava.serve.hosting.lifecycle import Lifecycle
from llava.serve.hosting.monitoring import add_monitoring_routes
from llava.serve.hosting.options import HostingOptions
from llava.serve.hosting.server import end_process, make_server, run_server
from llava.serve.hosting.sockets import bind
from llava.serve.middleware import api_keys, cors
from llava.serve.middleware.allowed_hosts import allowed_names
from llava.serve.middleware.api_keys import ApiKeys
from llava.serve.middleware.body_limits import BodyLimits
from llava.serve.middleware.closing_stream import ClosingStream
from llava.serve.middleware.draining import MONITORING
from llava.serve.middleware.server_log import set_up_logging
from llava.serve.middleware.stack import Middleware
from llava.serve.middleware.while_connected import AwaitedJson, release_body, while_connected
from llava.serve.openai_compat.backend import Backend, OpenReply
from llava.serve.openai_compat.controller_client import ControllerClient
from llava.serve.openai_compat.errors import REPLIES, error_response
from llava.serve.openai_compat.image_urls import ImageOptions, ImageUrls
from llava.serve.openai_compat.request import generation_body
from llava.serve.openai_compat.response import ChatAnswer, last_events
from llava.serve.openai_compat.schemas import ChatBody, Completion, Model, ModelList, chat_model
from llava.serve.openai_compat.templates import template_unknown
from llava.serve.protocol import errors
from llava.serve.protocol.errors import RequestFailure, request_id_of
from llava.serve.protocol.http_client import checked_url, new_client
from llava.serve.protocol.schemas import OTHER_TEMPLATE

COMPLETIONS: dict[int | str, dict[str, Any]] = {
    **REPLIES,
    200: {
        "model": Completion,
        "description": "the complete answer; with `stream`, its pieces as server-sent events",
        "content": {"text/event-stream": {}},
    },
}
TEMPLATE_TRIES = 3  # how often a chat is rendered where its worker turns out to have another template


@dataclass
class ChatApi:
    """State that the endpoints share. Without ``keys`` everyone is served. ``started``: seconds since the epoch."""

    controller: Backend[Any]
    images: ImageUrls = field(default_factory=ImageUrls)
    keys: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    limits: BodyLimits = field(default_factory=BodyLimits)
    started: int = field(default_factory=lambda: int(time.time()))
    lifecycle: Lifecycle = field(default_factory=Lifecycle)

    async def models(self) -> list[Model]:
        """Return the models that can be asked. Raises RequestFailure where the controller does not answer."""
        return [Model(id=name, created=self.started) for name in await self.controller.models()]

    async def state(self) -> dict[str, Any]:
        """Return what ``/ready`` says: the models that can be asked."""
        try:
            models = await self.controller.models()
            reason = None if models else "no worker is registered with the controller"
        except RequestFailure as failure:
            models, reason = [], failure.message
        return {"reason": self.lifecycle.not_ready_reason or reason, "models": models}

    def middleware(self, names: tuple[str, ...] | None = None) -> Middleware:
        """Return the middleware of the API's application; ``names``: by which it may be addressed."""
        return Middleware(
            self.lifecycle,
            self.limits,
            names=names,
            cors_origins=self.cors_origins,
            error_format=error_response,
            last_piece=last_events,
        )


class EventStream(ClosingStream):
    """Streamed reply of server-sent events."""

    media_type = "text/event-stream"


def create_app(api: ChatApi, middleware: Middleware | None = None) -> FastAPI:
    """Make the API's ASGI application. ``middleware``: by default the API's, without names."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await api.controller.close()
        if api.images.fetcher is not None:
            await api.images.fetcher.client.aclose()

    app = FastAPI(
        title="LLaVA, OpenAI-style API",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        dependencies=[Security(HTTPBearer(auto_error=False))] if api.keys else [],  # as documentation: ApiKeys checks
    )
    middleware = middleware or api.middleware()
    middleware.install(app, (ApiKeys, {"keys": api.keys, "error_format": error_response, "open_paths": MONITORING}))
    errors.install(app, error_response)
    add_monitoring_routes(app, (middleware.metrics.registry,), lambda: api.lifecycle.failure, api.state)
    _add_model_routes(app, api)
    _add_chat_route(app, api)
    return app


def _add_model_routes(app: FastAPI, api: ChatApi) -> None:
    @app.get("/v1/models", responses=REPLIES)
    async def list_models() -> ModelList:
        """List the models that can be asked."""
        return ModelList(data=await api.models())

    @app.get("/v1/models/{model:path}", responses=REPLIES)
    async def one_model(model: str) -> Model:
        """Return one model, by its name."""
        for found in await api.models():
            if found.id == model:
                return found
        raise RequestFailure(404, "no_such_model", f"no worker serves model {model[:100]!r}", param="model")


def _add_chat_route(app: FastAPI, api: ChatApi) -> None:
    body_model = chat_model()

    @app.post("/v1/chat/completions", response_model=None, responses=COMPLETIONS)
    async def chat_completions(body: body_model, request: Request) -> Response:  # type: ignore[valid-type]
        """Answer the last message of a chat."""
        return await _answer(api, body, request)


async def _answer(api: ChatApi, body: ChatBody, request: Request) -> Response:
    answer, reply = await while_connected(request, _open_answer(api, body, request))
    release_body(request)
    chunks = api.controller.chunks(reply)
    if body.stream:
        options = body.stream_options
        return EventStream(answer.events(chunks, bool(options and options.include_usage)), reply.aclose)

    async def completion() -> str:
        return (await answer.completion(chunks)).model_dump_json()

    return AwaitedJson(completion, reply.aclose)


async def _open_answer(api: ChatApi, body: ChatBody, request: Request) -> tuple[ChatAnswer, OpenReply]:
    """Send a chat to a worker; where that has another template, render the chat by the worker's template instead."""
    request_id = request_id_of(request) or ""
    for _ in range(TEMPLATE_TRIES):
        fields = await generation_body(body, request.headers, api.controller.templates, api.images)
        try:
            reply = await api.controller.open(fields, request_id)
        except RequestFailure as failure:
            if failure.reason != OTHER_TEMPLATE:
                raise
            api.controller.templates.forget(body.model)
            continue
        return ChatAnswer(request_id, body.model, fields["prompt"]), reply
    raise template_unknown(body.model, "its workers name different ones")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m llava.serve.openai_api", description=__doc__)
    parser.add_argument("--host", default="localhost", help="address to listen at; 0.0.0.0 listens on every network")
    parser.add_argument("--port", type=int, default=21003, help="port to listen at; 0 for a free one, which is logged")
    parser.add_argument(
        "--controller-address", metavar="URL", default="http://localhost:21001", help="address of the controller"
    )
    parser.add_argument(
        "--worker-timeout",
        type=float,
        metavar="SECONDS",
        default=120.0,
        help="maximum wait for the next piece of an answer, in seconds",
    )
    api_keys.add_flag(parser)
    cors.add_flag(parser)
    add_dataclass_flags(parser, ImageOptions)
    add_dataclass_flags(parser, BodyLimits)
    add_dataclass_flags(parser, HostingOptions)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the program; return the exit code, 2 for a user error."""
    args = parse_arguments(arguments)
    set_up_logging()
    return run_program(lambda: serve(args))


def chat_api(args: argparse.Namespace, backend: Backend[Any]) -> ChatApi:
    """Make the API that the flags ask for. Raises a ``LlavaError``."""
    return ChatApi(
        backend,
        from_flags(ImageOptions, args).reader(),
        api_keys.keys_of(args),
        cors.origins_of(args),
        from_flags(BodyLimits, args),
    )


def serve(args: argparse.Namespace) -> int:
    """Answer requests until a signal ends the process; return the exit code. Raises a ``LlavaError``."""
    controller = checked_url(args.controller_address, "--controller-address")
    api = chat_api(args, ControllerClient(controller, new_client(), args.worker_timeout))
    if not api.keys and args.host not in ("localhost", "127.0.0.1", "::1"):
        logging.getLogger(__name__).warning("no API key is set: everyone who reaches %s is served", args.host)
    options = from_flags(HostingOptions, args)
    middleware = api.middleware(allowed_names(args.host, options.extra_hosts))
    sockets = bind(args.host, args.port)
    return run_server(make_server(create_app(api, middleware), middleware, options, args.host, api.limits), sockets)


if __name__ == "__main__":
    end_process(main())
