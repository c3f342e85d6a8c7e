"""The OpenAI-style API over real sockets: streams as they grow, clients that disconnect, a full queue; its keys."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import httpx
import pytest
from fixtures.fake_controller import FakeController, api_app, asking
from fixtures.serving import metric_samples

from llava.flags import from_flags
from llava.serve import openai_api
from llava.serve.controller import create_app as create_controller
from llava.serve.openai_api import ChatApi, create_app
from llava.serve.openai_compat.controller_client import ControllerClient
from llava.serve.openai_compat.image_urls import ImageOptions
from llava.serve.protocol.http_client import new_client
from llava.serve.worker.app import create_app as create_worker
from llava.serve.worker.request_limits import RequestLimits
from llava.serve.worker.service import WorkerService

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "w5"}], "temperature": 0, "max_tokens": 20}
WAIT_S = 120


def wait_until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, f"still waiting: {what}"
        time.sleep(0.01)


@pytest.fixture
def slow(loaded, slow_engine, listen) -> Iterator[SimpleNamespace]:
    """A served model whose tokens come when the test releases them: ``engine.tokens.release()``."""
    service = WorkerService(loaded, make_engine=slow_engine.make, limits=RequestLimits(max_output_tokens=20))
    worker, controller = listen(create_worker(service)), listen(create_controller())
    body = {"worker_name": worker.address, "check_heart_beat": False}
    httpx.post(f"{controller.address}/register_worker", json=body, trust_env=False)
    api = listen(create_app(ChatApi(ControllerClient(controller.address, new_client()))))
    host, port = api.address.removeprefix("http://").split(":")
    yield SimpleNamespace(
        engine=slow_engine, url=f"{api.address}/v1/chat/completions", service=service, socket=(host, int(port))
    )
    slow_engine.tokens.release(1000)


def pieces_of(lines: Iterator[str]) -> Iterator[str]:
    """Yield the pieces of text of server-sent events, as they come."""
    for line in lines:
        if line.startswith("data: {"):
            choices = json.loads(line.removeprefix("data: "))["choices"]
            yield from (choice["delta"]["content"] for choice in choices if choice["delta"].get("content"))


def test_stream_grows_with_its_tokens(slow) -> None:
    client = httpx.Client(trust_env=False, timeout=WAIT_S)
    with client, client.stream("POST", slow.url, json={**CHAT, "stream": True}) as reply:
        assert reply.headers["Content-Type"].startswith("text/event-stream")
        pieces = pieces_of(reply.iter_lines())
        for count in (1, 2):
            slow.engine.tokens.release(count)  # no more tokens come until this piece was read
            assert next(pieces) and slow.engine.requests[0].outcome is None


def test_stream_that_is_closed_stops_its_generation(slow) -> None:
    client = httpx.Client(trust_env=False, timeout=WAIT_S)
    with client, client.stream("POST", slow.url, json={**CHAT, "stream": True}) as reply:
        slow.engine.tokens.release(1)
        assert next(pieces_of(reply.iter_lines()))
    wait_until(lambda: slow.engine.requests[0].cancelled_event.is_set(), "the generation is cancelled")
    slow.engine.tokens.release(1)
    wait_until(lambda: slow.engine.requests[0].outcome is not None, "the generation stops within a token")
    assert slow.engine.requests[0].tokens <= 2


def test_client_that_disconnects_before_its_completion_stops_it(slow) -> None:
    body = json.dumps(CHAT).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: api\r\nContent-Length: {len(body)}\r\n"
    with socket.create_connection(slow.socket) as connection:
        connection.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode() + body)
        wait_until(lambda: slow.engine.requests, "the generation starts")
    wait_until(lambda: slow.engine.requests[0].cancelled_event.is_set(), "the generation is cancelled")


@pytest.fixture
def failing(slow) -> SimpleNamespace:
    """``slow``, with an engine that fails."""
    slow.engine.fail = RuntimeError("a wheel came off")
    slow.engine.tokens.release(100)
    return slow


def test_failure_before_a_completion_is_its_status(failing) -> None:
    reply = httpx.post(failing.url, json=CHAT, trust_env=False, timeout=WAIT_S)
    error = reply.json()["error"]
    assert reply.status_code == 500 and error["type"] == "server_error" and "a wheel came off" in error["message"]


def test_failure_within_a_stream_is_its_last_event(failing) -> None:
    streamed = httpx.post(failing.url, json={**CHAT, "stream": True}, trust_env=False, timeout=WAIT_S)
    *_, failure, done, rest = streamed.text.split("\n\n")
    assert streamed.status_code == 200 and done == "data: [DONE]" and rest == ""
    assert "a wheel came off" in json.loads(failure.removeprefix("data: "))["error"]["message"]


def test_full_queue_is_a_429_with_retry_after(slow) -> None:
    slow.service.queue.max_waiting = 0
    first = threading.Thread(
        target=lambda: httpx.post(slow.url, json=CHAT, trust_env=False, timeout=WAIT_S), daemon=True
    )
    first.start()
    wait_until(lambda: slow.engine.requests, "the first request runs")
    reply = httpx.post(slow.url, json=CHAT, trust_env=False, timeout=WAIT_S)
    assert reply.status_code == 429 and int(reply.headers["Retry-After"]) >= 1
    assert reply.json()["error"]["code"] == "rate_limit_exceeded"
    slow.engine.tokens.release(100)
    first.join(WAIT_S)


def guarded(authorization: str | None) -> httpx.AsyncClient:
    """Make a client, with this header, of an API that has the keys ``first`` and ``second``."""
    controller = ControllerClient("http://controller", httpx.AsyncClient(transport=FakeController()))
    headers = {} if authorization is None else {"Authorization": authorization}
    return asking(create_app(ChatApi(controller, keys=("first", "second"))), headers=headers)


WRONG = [None, "Bearer wrong", "first", "Basic first", "Bearer first,second"]


@pytest.mark.anyio
@pytest.mark.parametrize("authorization", ["Bearer first", "Bearer second", "bearer first", "BEARER  second"])
async def test_right_key_is_accepted(authorization) -> None:
    async with guarded(authorization) as client:
        assert (await client.get("/v1/models")).status_code == 200


@pytest.mark.anyio
@pytest.mark.parametrize("authorization", WRONG)
async def test_wrong_key_is_a_401(authorization) -> None:
    async with guarded(authorization) as client:
        reply = await client.get("/v1/models")
    assert reply.status_code == 401 and reply.headers["WWW-Authenticate"] == "Bearer"
    assert reply.json()["error"]["code"] == "invalid_api_key"


@pytest.mark.anyio
async def test_wrong_key_is_refused_before_the_body_is_read() -> None:
    async with guarded("Bearer wrong") as client:
        assert (await client.post("/v1/chat/completions", content=b"{")).status_code == 401
    async with guarded("Bearer first") as client:
        assert (await client.post("/v1/chat/completions", content=b"{")).status_code == 400


@pytest.mark.anyio
async def test_health_needs_no_key() -> None:
    async with guarded(None) as client:
        assert (await client.get("/health")).status_code == 200


def test_flags_of_images_make_the_reader() -> None:
    flags = "--max-images 3 --allow-image-urls --image-url-timeout 2.5 --max-image-mib 0.5"
    images = from_flags(ImageOptions, openai_api.parse_arguments(flags.split())).reader()
    assert images.max_images == 3
    assert images.fetcher is not None and (images.fetcher.max_bytes, images.fetcher.timeout_s) == (2**19, 2.5)


def test_flags_without_image_urls_fetch_nothing() -> None:
    images = from_flags(ImageOptions, openai_api.parse_arguments([])).reader()
    assert images.fetcher is None and images.max_images == 8


def test_main_bad_limit_is_a_user_error(capsys) -> None:
    assert openai_api.main(["--body-timeout", "-1"]) == 2
    assert "--body-timeout is -1" in capsys.readouterr().err


ANSWER = b'{"text": "w5 sun", "error_code": 0, "finish_reason": "stop", "usage": {"prompt_tokens": 1, '
ANSWER += b'"completion_tokens": 1, "total_tokens": 2}}\0'
TIMEOUT = b'{"text": "too slow", "error_code": 1, "reason": "timeout"}\0'


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("fields", "answer", "status", "counted"),
    [
        ({}, ANSWER, 200, "200"),
        ({"stream": True}, ANSWER, 200, "200"),
        ({}, TIMEOUT, 504, "504"),
        ({"stream": True}, TIMEOUT, 200, "504"),
        ({"stream": True}, b"", 200, "502"),
        ({}, httpx.ConnectError("refused"), 503, "503"),
        ({"messages": 5}, ANSWER, 400, "400"),
        ({"tools": [{}]}, ANSWER, 400, "400"),
    ],
)
async def test_chat_is_counted_once_by_how_it_ends(caplog, fields, answer, status, counted) -> None:
    caplog.set_level("INFO")
    app = api_app(worker_generate_stream=answer)
    async with asking(app) as client:
        assert (await client.post("/v1/chat/completions", json={**CHAT, **fields})).status_code == status
        samples = metric_samples((await client.get("/metrics")).text)
    start = "http_requests_total /v1/chat/completions "
    ends = {name.removeprefix(start): value for name, value in samples.items() if name.startswith(start)}
    assert ends == {f"POST {counted}": 1}
    own = [record for record in caplog.records if record.name.startswith("llava.")]  # not the client's
    lines = [record for record in own if "/v1/chat/completions" in record.getMessage()]
    assert len(lines) == 1 and f" {counted} " in lines[0].getMessage()


@pytest.mark.anyio
async def test_monitoring_needs_no_key_and_says_whether_models_can_be_asked() -> None:
    client = httpx.AsyncClient(transport=FakeController())
    api = ChatApi(ControllerClient("http://controller", client), keys=("secret-1",))
    async with asking(create_app(api)) as asked:
        assert [(await asked.get(path)).status_code for path in ("/health", "/ready", "/metrics")] == [200] * 3
        assert (await asked.get("/v1/models")).status_code == 401
        assert (await asked.get("/ready")).json()["models"] == ["tiny"]
        samples = metric_samples((await asked.get("/metrics")).text)
        assert samples["http_requests_total /v1/models GET 401"] == 1
        api.lifecycle.drain()
        assert (await asked.get("/ready")).status_code == 503 and (await asked.get("/health")).status_code == 200


@pytest.mark.anyio
@pytest.mark.parametrize("reply", [{"models": []}, httpx.ConnectError("refused")])
async def test_api_without_models_is_not_ready(reply) -> None:
    async with asking(api_app(list_models=reply)) as client:
        ready = await client.get("/ready")
    assert ready.status_code == 503 and ready.json()["models"] == [] and "controller" in ready.json()["reason"]


@pytest.mark.anyio
@pytest.mark.parametrize("stream", [True, False])
async def test_answer_that_outlasts_the_drain_ends_with_a_failure(stream) -> None:
    class Slow(httpx.AsyncByteStream):
        async def __aiter__(self):
            yield b'{"text": "w5 a", "error_code": 0}\0'
            await asyncio.Event().wait()

    class Controller(FakeController):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            if request.url.path == "/worker_generate_stream":
                return httpx.Response(200, stream=Slow())
            return await super().handle_async_request(request)

    api = ChatApi(ControllerClient("http://controller", httpx.AsyncClient(transport=Controller())))
    async with asking(create_app(api)) as client:
        asked = asyncio.create_task(client.post("/v1/chat/completions", json={**CHAT, "stream": stream}))
        while not api.lifecycle.in_flight:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        api.lifecycle.drain()
        api.lifecycle.abandon()
        reply = await asyncio.wait_for(asked, WAIT_S)
    assert "shutting_down" in reply.text and reply.status_code == (200 if stream else 503)
    assert not stream or reply.text.endswith("data: [DONE]\n\n")
