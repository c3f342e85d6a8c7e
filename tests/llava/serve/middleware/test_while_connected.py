"""Work that ends with its client, and bodies that are forgotten while an answer goes on: controller, API, worker."""

import asyncio
import gc
import json
import time
import tracemalloc

import httpx
import pytest
from fixtures.fake_controller import FakeController
from fixtures.fake_workers import Pieces, answering

from llava.serve.middleware.body_limits import BodyLimits
from llava.serve.openai_api import ChatApi, create_app
from llava.serve.openai_compat.controller_client import ControllerClient
from llava.serve.protocol.http_client import BodyOnce
from llava.serve.protocol.schemas import chunk

pytestmark = pytest.mark.anyio
IMAGE = 8 * 1024 * 1024  # characters


class Waiting(httpx.AsyncByteStream):
    """An answer that begins, and goes on once the test says so."""

    def __init__(self, prompt: str) -> None:
        self.begun, self.goes_on, self.prompt = asyncio.Event(), asyncio.Event(), prompt

    async def __aiter__(self):
        self.begun.set()
        yield chunk(f"{self.prompt} w6")
        await self.goes_on.wait()
        usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
        yield chunk(f"{self.prompt} w6 w7", finish_reason="stop", usage=usage)


class Exchange:
    """A raw request that keeps nothing of its body, and can leave."""

    def __init__(self, app, path: str, body: dict) -> None:
        self.incoming = [json.dumps(body).encode()]
        self.left = asyncio.Event()
        self.sent: list[dict] = []
        scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [(b"content-type", b"application/json"), (b"host", b"localhost")],
            "server": ("localhost", 80),
            "client": ("127.0.0.1", 1),
            "asgi": {"version": "3.0", "spec_version": "2.3"},
        }
        self.task = asyncio.create_task(app(scope, self._receive, self._send))

    async def _receive(self) -> dict:
        if self.incoming:
            return {"type": "http.request", "body": self.incoming.pop(), "more_body": False}
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict) -> None:
        self.sent.append(message)


def chat_api(answer: Waiting):
    class Controller(FakeController):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            if request.url.path != "/worker_generate_stream":
                return await super().handle_async_request(request)
            async for _ in request.stream:
                pass
            return httpx.Response(200, stream=answer)

    client = httpx.AsyncClient(transport=Controller())
    return create_app(ChatApi(ControllerClient("http://controller", client), limits=BodyLimits()))


async def held_while_answering(make_app, path: str, body: dict, answer: Waiting) -> tuple[int, Exchange]:
    """Bytes that are held more, while a request is being answered, than before; and the request."""
    app = await make_app()
    gc.collect()
    tracemalloc.start()
    try:
        exchange = Exchange(app, path, body)
        del body
        await answer.begun.wait()
        await asyncio.sleep(0.05)
        gc.collect()
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    answer.goes_on.set()
    await exchange.task
    return held, exchange


@pytest.mark.parametrize("stream", [True, False])
async def test_api_holds_no_image_while_it_is_answered(stream) -> None:
    answer = Waiting("p")

    async def make():
        return chat_api(answer)

    def body() -> dict:
        parts = [{"type": "text", "text": "w5"}, {"type": "image_url", "image_url": {"url": ""}}]
        parts[1]["image_url"]["url"] = "data:image/png;base64," + "A" * IMAGE
        return {"model": "tiny", "messages": [{"role": "user", "content": parts}], "stream": stream}

    held, exchange = await held_while_answering(make, "/v1/chat/completions", body(), answer)
    assert exchange.sent[0]["status"] == 200, exchange.sent
    assert held < IMAGE / 4


async def test_controller_holds_no_image_while_it_is_answered(fleet) -> None:
    answer = Waiting("w5")

    async def make():
        await fleet.add(1, answering())
        handle = fleet.workers.handle_async_request

        async def read(request: httpx.Request) -> httpx.Response:
            if request.url.path != "/worker_generate_stream":
                return await handle(request)
            async for _ in request.stream:
                pass
            return httpx.Response(200, stream=answer)

        fleet.workers.handle_async_request = read
        return fleet.app

    body = {"model": "tiny", "prompt": "w5", "images": ["A" * IMAGE]}
    held, exchange = await held_while_answering(make, "/worker_generate_stream", body, answer)
    assert exchange.sent[0]["status"] == 200
    assert held < IMAGE / 4


async def test_client_that_leaves_before_a_worker_answers_ends_the_controllers_request(fleet) -> None:
    await fleet.add(1, answering())
    asked, cancelled = asyncio.Event(), asyncio.Event()

    async def never(request: httpx.Request) -> httpx.Response:
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        raise AssertionError

    fleet.workers.handle_async_request = never
    exchange = Exchange(fleet.app, "/worker_generate_stream", {"model": "tiny", "prompt": "w5"})
    await asked.wait()
    exchange.left.set()
    began = time.monotonic()
    await exchange.task
    assert cancelled.is_set() and time.monotonic() - began < 10


async def test_body_is_given_once_and_as_long_as_it_says() -> None:
    body = BodyOnce(b"abc")
    assert body.headers["Content-Length"] == "3"
    given = [piece async for piece in body]
    assert given == [b"abc"] and [piece async for piece in body] == []


async def test_worker_lost_in_the_first_try_gets_the_body_again_from_the_next(fleet) -> None:
    seen = []

    def worker(status: int):
        def answer(request: httpx.Request) -> httpx.Response:
            seen.append(json.loads(request.content)["prompt"])
            return httpx.Response(status, stream=Pieces(chunk("w5")))

        return answer

    await fleet.add(1, worker(503))
    await fleet.add(2, worker(200))
    assert (await fleet.ask()).status_code == 200
    assert seen == ["w5", "w5"]
