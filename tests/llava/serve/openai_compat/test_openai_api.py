"""The OpenAI-style API itself: streams as they grow, clients that leave, keys, failures of what stands behind it."""

import argparse
import json
import threading
import time
from types import SimpleNamespace

import httpx
import pytest

from llava.errors import OptionError
from llava.serve.controller import create_app as create_controller
from llava.serve.controller import new_client
from llava.serve.middleware import api_keys
from llava.serve.openai_api import ChatApi, create_app, parse_arguments
from llava.serve.openai_compat.controller_client import ControllerClient
from llava.serve.protocol.schemas import chunk
from llava.serve.worker.app import create_app as create_worker
from llava.serve.worker.request_limits import RequestLimits
from llava.serve.worker.service import WorkerService

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "w5"}], "temperature": 0, "max_tokens": 20}
WAIT = 120  # seconds


def api_before(controller: str, listen, **changes):
    return listen(create_app(ChatApi(ControllerClient(controller, new_client()), **changes)))


def until(true, what: str) -> None:
    deadline = time.monotonic() + WAIT
    while not true():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.01)


@pytest.fixture
def slow(loaded, slow_engine, listen):
    """A served model whose tokens come when told to."""
    service = WorkerService(loaded, make_engine=slow_engine.make, limits=RequestLimits(max_output_tokens=20))
    worker, controller = listen(create_worker(service)), listen(create_controller())
    body = {"worker_name": worker.address, "check_heart_beat": False}
    httpx.post(f"{controller.address}/register_worker", json=body, trust_env=False)
    api = api_before(controller.address, listen)
    yield SimpleNamespace(engine=slow_engine, url=f"{api.address}/v1/chat/completions", service=service)
    slow_engine.tokens.release(1000)


def contents(lines):
    """Pieces of text, as they come."""
    for line in lines:
        if line.startswith("data: {"):
            choices = json.loads(line.removeprefix("data: "))["choices"]
            yield from (choice["delta"]["content"] for choice in choices if choice["delta"].get("content"))


def test_a_stream_grows_with_its_tokens_and_ends_with_its_reader(slow) -> None:
    client = httpx.Client(trust_env=False, timeout=WAIT)
    with client, client.stream("POST", slow.url, json={**CHAT, "stream": True}) as reply:
        assert reply.headers["Content-Type"].startswith("text/event-stream")
        pieces = contents(reply.iter_lines())
        for count in (1, 2):
            slow.engine.tokens.release(count)  # no more tokens come until this piece was read
            assert "".join(next(pieces) for _ in range(1)) and slow.engine.requests[0].outcome is None
    until(lambda: slow.engine.requests[0].cancelled_event.is_set(), "it is cancelled")
    slow.engine.tokens.release(1)
    until(lambda: slow.engine.requests[0].outcome is not None, "it stops within a token")
    assert slow.engine.requests[0].tokens <= 4


def test_a_client_that_leaves_before_its_whole_answer_stops_it(slow) -> None:
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(slow.url, json=CHAT, trust_env=False, timeout=httpx.Timeout(WAIT, read=2))
    until(
        lambda: slow.engine.requests and slow.engine.requests[0].cancelled_event.is_set(),
        "the generation is told to stop",
    )


def test_a_failure_within_an_answer(slow) -> None:
    slow.engine.fail = RuntimeError("a wheel came off")
    slow.engine.tokens.release(100)
    reply = httpx.post(slow.url, json=CHAT, trust_env=False, timeout=WAIT)
    error = reply.json()["error"]
    assert reply.status_code == 500 and error["type"] == "server_error" and "a wheel came off" in error["message"]
    streamed = httpx.post(slow.url, json={**CHAT, "stream": True}, trust_env=False, timeout=WAIT)
    *_, failure, done, rest = streamed.text.split("\n\n")
    assert streamed.status_code == 200 and done == "data: [DONE]" and rest == ""
    assert "a wheel came off" in json.loads(failure.removeprefix("data: "))["error"]["message"]


def test_a_full_queue_says_when_to_come_again(slow) -> None:
    slow.service.queue.max_waiting = 0
    first = threading.Thread(target=lambda: httpx.post(slow.url, json=CHAT, trust_env=False, timeout=WAIT), daemon=True)
    first.start()
    until(lambda: slow.engine.requests, "the first runs")
    reply = httpx.post(slow.url, json=CHAT, trust_env=False, timeout=WAIT)
    assert reply.status_code == 429 and int(reply.headers["Retry-After"]) >= 1
    assert reply.json()["error"]["code"] == "rate_limit_exceeded"
    slow.engine.tokens.release(100)
    first.join(WAIT)


class Behind(httpx.AsyncBaseTransport):
    """A controller that answers as told: path -> reply, or an exception."""

    def __init__(self, **replies) -> None:
        self.replies = {"get_worker_address": {"address": "http://worker"}, "list_models": {"models": ["tiny"]}}
        self.replies |= replies

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/ready":
            raise httpx.ConnectError("upstream's workers have no such page")
        reply = self.replies[request.url.path[1:]]
        if isinstance(reply, Exception):
            raise reply
        return httpx.Response(200, content=reply) if isinstance(reply, bytes) else httpx.Response(200, json=reply)


FIGURES = {"finish_reason": "stop", "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}}


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("replies", "status", "words"),
    [
        ({"get_worker_address": {"address": ""}}, 404, "there are: tiny"),
        ({"get_worker_address": {"address": ""}, "list_models": {"models": []}}, 503, "no worker is registered"),
        ({"get_worker_address": httpx.ConnectError("refused")}, 503, "cannot be reached"),
        ({"worker_generate_stream": httpx.ReadTimeout("slow")}, 502, "broke off (ReadTimeout)"),
        ({"worker_generate_stream": chunk("half")}, 502, "without its figures"),
        ({"worker_generate_stream": b""}, 502, "without its figures"),
        ({"worker_generate_stream": chunk("lost", 3, reason="worker_lost")}, 502, "lost"),
        ({"worker_generate_stream": chunk("slow", 1, reason="timeout")}, 504, "slow"),
        ({"worker_generate_stream": chunk("no", 1, reason="bad_request")}, 400, "no"),
    ],
)
async def test_failures_behind_it(replies, status, words) -> None:
    client = httpx.AsyncClient(transport=Behind(**replies))
    app = create_app(ChatApi(ControllerClient("http://controller", client)))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://api") as asking:
        reply = await asking.post("/v1/chat/completions", json=CHAT)
    assert reply.status_code == status and words in reply.json()["error"]["message"], reply.text


@pytest.mark.anyio
async def test_space_around_an_answer_is_left_out_and_its_figures_are_passed_on() -> None:
    prompt = (
        "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, "
        "detailed, and polite answers to the human's questions. USER: w5 ASSISTANT:"
    )
    said = b"".join(chunk(prompt + text) for text in (" ", " a", " a ", " a b"))
    said += chunk(prompt + " a b \n", **FIGURES, total_ms=5, more={"x": 1})
    client = httpx.AsyncClient(transport=Behind(worker_generate_stream=said))
    app = create_app(ChatApi(ControllerClient("http://controller", client)))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://api") as asking:
        whole = (await asking.post("/v1/chat/completions", json=CHAT)).json()
        streamed = (await asking.post("/v1/chat/completions", json={**CHAT, "stream": True})).text
    assert whole["choices"][0]["message"] == {"role": "assistant", "content": "a b", "refusal": None}
    assert whole["llava"] == {"total_ms": 5, "more": {"x": 1}} and whole["usage"] == FIGURES["usage"]
    assert list(contents(streamed.splitlines())) == ["a", " b"]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("header", "status"),
    [
        (None, 401),
        ("Bearer wrong", 401),
        ("first", 401),
        ("Basic first", 401),
        ("Bearer first,second", 401),
        ("Bearer first", 200),
        ("Bearer second", 200),
    ],
)
async def test_keys(header, status) -> None:
    client = httpx.AsyncClient(transport=Behind())
    app = create_app(ChatApi(ControllerClient("http://controller", client), keys=("first", "second")))
    headers = {} if header is None else {"Authorization": header}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://api", headers=headers) as asking:
        reply = await asking.get("/v1/models")
        assert reply.status_code == status and (await asking.get("/health")).status_code == 200
        refused = await asking.post("/v1/chat/completions", content=b"{")
    assert refused.status_code == (401 if status == 401 else 400), "the key comes first"
    if status == 401:
        assert reply.json()["error"]["code"] == "invalid_api_key" and reply.headers["WWW-Authenticate"] == "Bearer"


def test_where_keys_come_from(tmp_path, monkeypatch) -> None:
    file = tmp_path / "keys"
    file.write_text("# ours\none\n\ntwo # theirs\n", encoding="utf-8")
    monkeypatch.setenv(api_keys.VARIABLE, "three, four,")
    assert api_keys.keys_of(parse_arguments(["--api-key-file", str(file)])) == ("three", "four", "one", "two")
    monkeypatch.delenv(api_keys.VARIABLE)
    assert api_keys.keys_of(argparse.Namespace(api_key_file=None)) == ()
    file.write_text("# none\n", encoding="utf-8")
    for path in (file, tmp_path / "nowhere", tmp_path):
        with pytest.raises(OptionError, match="--api-key-file"):
            api_keys.keys_of(argparse.Namespace(api_key_file=str(path)))
    file.write_text("schlüssel\n", encoding="utf-8")
    with pytest.raises(OptionError, match="printable ASCII"):
        api_keys.keys_of(argparse.Namespace(api_key_file=str(file)))
