"""An API in OpenAI's form in front of the controller: ``python -m llava.serve.openai_api``."""

import argparse
import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx
import uvicorn
from fastapi import FastAPI, Request, Security
from fastapi.responses import Response
from fastapi.security import HTTPBearer

from llava.program import run_program
from llava.serve.controller import new_client
from llava.serve.middleware import api_keys, body_limits
from llava.serve.middleware.api_keys import ApiKeys
from llava.serve.middleware.body_limits import BodyLimits, LimitedBodies
from llava.serve.middleware.closing_stream import ClosingStream
from llava.serve.middleware.request_ids import RequestIds
from llava.serve.middleware.server_log import set_up_logging
from llava.serve.openai_compat.controller_client import ControllerClient
from llava.serve.openai_compat.errors import REPLIES, error_response
from llava.serve.openai_compat.image_urls import ImageAddresses
from llava.serve.openai_compat.request import generation_body
from llava.serve.openai_compat.response import ChatAnswer
from llava.serve.openai_compat.safe_fetch import PublicFetcher
from llava.serve.openai_compat.schemas import ChatBody, Completion, Model, ModelList, chat_model
from llava.serve.protocol import errors as failures
from llava.serve.protocol.errors import RequestFailure, request_id_of

HEALTH = "/health"
COMPLETIONS: dict[int | str, dict[str, Any]] = {
    **REPLIES,
    200: {
        "model": Completion,
        "description": "the whole answer; with `stream`, its pieces as server-sent events",
        "content": {"text/event-stream": {}},
    },
}
T = TypeVar("T")


@dataclass
class ChatApi:
    """What the endpoints share. No ``keys``: everyone may ask."""

    controller: ControllerClient
    images: ImageAddresses = field(default_factory=ImageAddresses)
    keys: tuple[str, ...] = ()
    limits: BodyLimits = field(default_factory=BodyLimits)
    began: int = field(default_factory=lambda: int(time.time()))

    async def models(self) -> list[Model]:
        """Those that can be asked."""
        return [Model(id=name, created=self.began) for name in await self.controller.models()]


class EventStream(ClosingStream):
    """Server-sent events."""

    media_type = "text/event-stream"


def create_app(api: ChatApi) -> FastAPI:
    """The API as an application."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await api.controller.client.aclose()
        if api.images.fetcher is not None:
            await api.images.fetcher.client.aclose()

    app = FastAPI(
        title="LLaVA in OpenAI's form",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        dependencies=[Security(HTTPBearer(auto_error=False))] if api.keys else [],  # as documentation: ApiKeys checks
    )
    app.add_middleware(LimitedBodies, limits=api.limits, form=error_response)
    app.add_middleware(ApiKeys, keys=api.keys, form=error_response, open_paths=(HEALTH,))
    app.add_middleware(RequestIds, quiet=(HEALTH,), form=error_response)
    failures.install(app, error_response)
    _add_model_routes(app, api)
    _add_chat_route(app, api)
    return app


def _add_model_routes(app: FastAPI, api: ChatApi) -> None:
    @app.get("/v1/models", responses=REPLIES)
    async def list_models() -> ModelList:
        """Models that can be asked."""
        return ModelList(data=await api.models())

    @app.get("/v1/models/{model}", responses=REPLIES)
    async def one_model(model: str) -> Model:
        """One of them."""
        for found in await api.models():
            if found.id == model:
                return found
        raise RequestFailure(404, "no_such_model", f"no worker serves model {model[:100]!r}", param="model")

    @app.get(HEALTH)
    async def health() -> dict[str, str]:
        """The process answers."""
        return {"status": "ok"}


def _add_chat_route(app: FastAPI, api: ChatApi) -> None:
    body_model = chat_model()

    @app.post("/v1/chat/completions", response_model=None, responses=COMPLETIONS)
    async def chat_completions(body: body_model, request: Request) -> Response:  # type: ignore[valid-type]
        """Answer the last message of a chat."""
        return await _answer(api, body, request)


async def _answer(api: ChatApi, body: ChatBody, request: Request) -> Response:
    request_id = request_id_of(request) or ""

    async def opened() -> tuple[ChatAnswer, httpx.Response]:
        asked = await generation_body(body, request.headers, api.controller, api.images)
        return ChatAnswer(request_id, body.model, asked["prompt"]), await api.controller.open(asked, request_id)

    answer, reply = await _unless_gone(request, opened())
    objects = api.controller.objects(reply)
    if body.stream:
        options = body.stream_options
        return EventStream(answer.events(objects, bool(options and options.include_usage)), reply.aclose)
    try:
        completion = await _unless_gone(request, answer.whole(objects))
    finally:
        await reply.aclose()
    return Response(completion.model_dump_json(), media_type="application/json")


async def _unless_gone(request: Request, work: Awaitable[T]) -> T:
    """The result of ``work``, which is stopped where the client leaves. Raises RequestFailure then, to nobody."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise RequestFailure(499, "client_gone", "the client left before its answer was there")
        return working.result()
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(prog="python -m llava.serve.openai_api", description=__doc__)
    parser.add_argument("--host", default="localhost", help="address to listen at; 0.0.0.0 for every network")
    parser.add_argument("--port", type=int, default=21003, help="port to listen at")
    parser.add_argument("--controller-address", default="http://localhost:21001", help="the controller")
    parser.add_argument(
        "--worker-timeout", type=float, default=120.0, help="seconds to wait for the next piece of an answer"
    )
    api_keys.add_flag(parser)
    group = parser.add_argument_group("pictures")
    group.add_argument("--max-images", type=int, default=8, help="pictures in one request")
    group.add_argument(
        "--allow-image-urls", action="store_true", help="fetch pictures from http(s) addresses of the public internet"
    )
    group.add_argument("--image-url-timeout", type=float, default=10.0, help="seconds that one such picture may take")
    group.add_argument("--max-image-mib", type=float, default=8.0, help="largest such picture, MiB")
    body_limits.add_flags(parser)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """The program; the exit code: 2 for what the user can mend."""
    args = parse_arguments(arguments)
    set_up_logging()
    return run_program(lambda: serve(args))


def serve(args: argparse.Namespace) -> None:
    """Answer requests until the process is told to end."""
    log = logging.getLogger(__name__)
    fetcher = None
    if args.allow_image_urls:
        fetcher = PublicFetcher(int(args.max_image_mib * body_limits.MIB), args.image_url_timeout)
    api = ChatApi(
        ControllerClient(args.controller_address.rstrip("/"), new_client(), args.worker_timeout),
        ImageAddresses(fetcher, args.max_images),
        api_keys.keys_of(args),
        body_limits.from_flags(args),
    )
    if not api.keys and args.host not in ("localhost", "127.0.0.1", "::1"):
        log.warning("no API key is set: everyone who reaches %s may ask", args.host)
    log.info("OpenAI-style API at http://%s:%d/v1", args.host, args.port)
    uvicorn.run(create_app(api), host=args.host, port=args.port, log_config=None, access_log=False)


if __name__ == "__main__":
    raise SystemExit(main())
