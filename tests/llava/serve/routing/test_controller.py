"""The controller's endpoints, with small workers behind it that answer, refuse, break off, or are not there."""

import asyncio
import json
from types import SimpleNamespace

import httpx
import pytest

from llava.serve.controller import Controller, create_app
from llava.serve.protocol.schemas import chunk
from llava.serve.routing.worker_registry import WorkerRegistry

pytestmark = pytest.mark.anyio
STATUS = {"model_names": ["tiny"], "speed": 1, "queue_length": 0}


class Workers(httpx.AsyncBaseTransport):
    """Workers by address: each a function from a request to a reply, or one that raises."""

    def __init__(self) -> None:
        self.by_host: dict[str, object] = {}
        self.seen: list[tuple[str, str]] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        host = f"{request.url.scheme}://{request.url.netloc.decode()}"
        self.seen.append((host, request.url.path))
        if host not in self.by_host:
            raise httpx.ConnectError("refused")
        if request.url.path == "/worker_get_status":
            return httpx.Response(200, json=STATUS)
        await request.aread()
        return self.by_host[host](request)


class Pieces(httpx.AsyncByteStream):
    """A body in pieces; an exception among them is raised."""

    def __init__(self, *pieces) -> None:
        self.pieces = pieces

    async def __aiter__(self):
        for piece in self.pieces:
            if isinstance(piece, Exception):
                raise piece
            yield piece


def answering(*pieces, status=200, headers=None):
    return lambda request: httpx.Response(status, stream=Pieces(*pieces), headers=headers)


@pytest.fixture
async def setup():
    workers = Workers()
    now = [0.0]
    registry = WorkerRegistry("shortest_queue", 30.0, clock=lambda: now[0])
    controller = Controller(registry, client=httpx.AsyncClient(transport=workers))
    app = create_app(controller)
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://controller")

    async def post(path, body=None, **options):
        return await client.post(path, json={} if body is None else body, **options)

    def add(port, worker):
        workers.by_host[f"http://localhost:{port}"] = worker
        return post(
            "/register_worker",
            {"worker_name": f"http://localhost:{port}", "check_heart_beat": True, "worker_status": STATUS},
        )

    yield SimpleNamespace(
        post=post, add=add, workers=workers, registry=registry, now=now, controller=controller, app=app
    )
    await client.aclose()


def parts_of(reply: httpx.Response) -> list[dict]:
    return [json.loads(part) for part in reply.content.split(b"\0") if part]


ASK = {"model": "tiny", "prompt": "w5"}


async def test_the_life_of_a_worker(setup):
    assert (await setup.post("/list_models")).json() == {"models": []}
    assert (
        await setup.post("/receive_heart_beat", {"worker_name": "http://localhost:1", "queue_length": 0})
    ).json() == {"exist": False}
    reply = await setup.add(1, answering())
    assert reply.status_code == 200 and reply.json() is None
    assert (await setup.post("/list_models")).json() == {"models": ["tiny"]}
    assert (await setup.post("/get_worker_address", {"model": "tiny"})).json() == {"address": "http://localhost:1"}
    assert (await setup.post("/get_worker_address", {"model": "other"})).json() == {"address": ""}
    assert (await setup.post("/worker_get_status")).json() == {**STATUS, "queue_length": 1}
    beat = {"worker_name": "http://localhost:1", "queue_length": 7}
    assert (await setup.post("/receive_heart_beat", beat)).json() == {"exist": True}
    assert (await setup.post("/worker_get_status")).json()["queue_length"] == 7
    setup.now[0] = 31.0
    assert (await setup.post("/receive_heart_beat", beat)).json() == {"exist": False}
    assert (await setup.post("/list_models")).json() == {"models": []}


async def test_a_worker_that_leaves_gets_nothing_more(setup):
    await setup.add(1, answering())
    reply = await setup.post("/unregister_worker", {"worker_name": "http://localhost:1"})
    assert reply.json() == {"exist": True} and setup.registry.models() == []


async def test_registration_without_a_status_asks_the_worker(setup):
    setup.workers.by_host["http://localhost:5"] = answering()
    body = {"worker_name": "http://localhost:5", "check_heart_beat": False, "worker_status": None}
    assert (await setup.post("/register_worker", body)).status_code == 200
    assert setup.registry.models() == ["tiny"]
    gone = await setup.post("/register_worker", {**body, "worker_name": "http://localhost:6"})
    assert gone.status_code == 502 and "http://localhost:6" in gone.json()["text"]


async def test_refreshing_forgets_those_that_do_not_answer(setup):
    for port in (1, 2):
        await setup.add(port, answering())
    del setup.workers.by_host["http://localhost:1"]
    assert (await setup.post("/refresh_all_workers")).status_code == 200
    assert list(setup.registry.workers()) == ["http://localhost:2"]


async def test_an_answer_is_handed_on_whole(setup):
    first, last = chunk("w5 a"), chunk("w5 a b", finish_reason="stop")
    bodies = []

    def worker(request):
        bodies.append((request.content, request.headers["X-Request-Id"]))
        return httpx.Response(200, stream=Pieces(first[:3], first[3:] + last[:9], last[9:]))

    await setup.add(1, worker)
    asked = {**ASK, "latency_budget": 0.5, "images": []}
    reply = await setup.post("/worker_generate_stream", asked, headers={"X-Request-Id": "mine-1"})
    assert reply.content == first + last
    assert json.loads(bodies[0][0]) == asked and bodies[0][1] == "mine-1" == reply.headers["X-Request-Id"]


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ((httpx.ReadError("reset"),), "was lost"),
        ((b'{"text": "w5 b', httpx.RemoteProtocolError("closed")), "was lost"),
        ((b'{"text": "w5 b',), "was lost"),
        ((httpx.ReadTimeout("slow"),), "did not respond in time"),
    ],
)
async def test_a_worker_that_breaks_off_is_told_behind_whole_objects(setup, broken, said):
    await setup.add(1, answering(chunk("w5 a"), *broken))
    parts = parts_of(await setup.post("/worker_generate_stream", ASK))
    assert parts[0] == {"text": "w5 a", "error_code": 0} and len(parts) == 2
    assert parts[1]["error_code"] == 3 and said in parts[1]["text"] and "http://localhost:1" in parts[1]["text"]
    assert setup.registry.models() == ["tiny"], "it still gives its status"


async def test_a_worker_that_died_in_an_answer_is_forgotten(setup):
    def worker(request):
        del setup.workers.by_host["http://localhost:1"]
        return httpx.Response(200, stream=Pieces(chunk("w5 a"), httpx.ReadError("reset")))

    await setup.add(1, worker)
    assert parts_of(await setup.post("/worker_generate_stream", ASK))[-1]["error_code"] == 3
    assert setup.registry.models() == []


async def test_a_worker_that_cannot_be_reached_is_forgotten_and_another_one_asked(setup):
    for port in (1, 2):
        await setup.add(port, answering(chunk(f"w5 from {port}")))
    del setup.workers.by_host["http://localhost:1"]
    for _ in range(2):
        assert parts_of(await setup.post("/worker_generate_stream", ASK))[-1]["text"] == "w5 from 2"
    assert list(setup.registry.workers()) == ["http://localhost:2"]
    del setup.workers.by_host["http://localhost:2"]
    reply = await setup.post("/worker_generate_stream", ASK)
    assert reply.status_code == 502 and reply.json()["error_code"] == 3 and "localhost:2" in reply.json()["text"]


async def test_full_workers_are_passed_over_and_the_last_refusal_is_handed_on(setup):
    refusal = json.dumps({"text": "the queue is full", "error_code": 1, "reason": "queue_full"}).encode()
    full = answering(refusal, status=429, headers={"Retry-After": "7"})
    await setup.add(1, full)
    await setup.add(2, answering(chunk("w5 from 2")))
    assert {parts_of(await setup.post("/worker_generate_stream", ASK))[-1]["text"] for _ in range(3)} == {"w5 from 2"}
    setup.workers.by_host["http://localhost:2"] = full
    reply = await setup.post("/worker_generate_stream", ASK)
    assert reply.status_code == 429 and reply.headers["Retry-After"] == "7"
    assert reply.json()["text"] == "the queue is full" and reply.json()["error_code"] == 1


async def test_a_bad_request_is_not_tried_on_every_worker(setup):
    refusal = json.dumps({"text": "temperature: too hot", "error_code": 1, "reason": "bad_request"}).encode()
    for port in (1, 2):
        await setup.add(port, answering(refusal, status=422))
    reply = await setup.post("/worker_generate_stream", ASK)
    assert reply.status_code == 422 and reply.json()["text"] == "temperature: too hot"
    assert sum(path == "/worker_generate_stream" for _, path in setup.workers.seen) == 1


@pytest.mark.parametrize("body", [b"<html>", b"", b"[]", b'{"text": 1}'])
async def test_a_refusal_without_a_reason_is_told_as_such(setup, body):
    await setup.add(1, answering(body, status=500))
    reply = await setup.post("/worker_generate_stream", ASK)
    assert reply.status_code == 500 and "status 500" in reply.json()["text"] and reply.json()["error_code"] == 3


async def test_a_worker_that_fails_in_front_of_its_answer_is_not_asked_twice(setup):
    def failing(request):
        raise httpx.ReadTimeout("slow")

    await setup.add(1, failing)
    await setup.add(2, failing)
    reply = await setup.post("/worker_generate_stream", ASK)
    assert reply.status_code == 502 and "did not respond in time" in reply.json()["text"]
    assert sum(path == "/worker_generate_stream" for _, path in setup.workers.seen) == 1


async def test_models_that_nobody_serves(setup):
    nobody = await setup.post("/worker_generate_stream", ASK)
    assert nobody.status_code == 503 and nobody.json()["error_code"] == 2
    await setup.add(1, answering())
    other = await setup.post("/worker_generate_stream", {**ASK, "model": "../../etc/passwd"})
    assert other.status_code == 404 and other.json()["error_code"] == 2 and "tiny" in other.json()["text"]


async def test_a_client_that_leaves_closes_the_workers_answer(setup, connect):
    closed = asyncio.Event()

    class Endless(httpx.AsyncByteStream):
        async def __aiter__(self):
            while True:
                yield chunk("w5")
                await asyncio.sleep(0.01)

        async def aclose(self):
            closed.set()

    await setup.add(1, lambda request: httpx.Response(200, stream=Endless()))
    client = connect(setup.app, **ASK)
    while not client.parts():
        await asyncio.sleep(0.01)
    client.left.set()
    await client.task
    assert closed.is_set()


TOKEN = {"Authorization": "Bearer secret-1"}
REGISTRATION = {"worker_name": "http://localhost:1", "check_heart_beat": True, "worker_status": STATUS}


@pytest.mark.parametrize("path", ["/register_worker", "/receive_heart_beat", "/unregister_worker"])
async def test_workers_show_the_token(setup, path):
    setup.controller.token = "secret-1"
    body = {**REGISTRATION, "queue_length": 0}
    for headers in ({}, {"Authorization": "Bearer secret-2"}, {"Authorization": "secret-1"}, {"Authorization": "é"}):
        encoded = {name: value.encode("latin-1") for name, value in headers.items()}
        reply = await setup.post(path, body, headers=encoded)
        assert reply.status_code == 403 and "token" in reply.json()["text"] and "secret-1" not in reply.text
    assert setup.registry.models() == []
    assert (await setup.post(path, body, headers=TOKEN)).status_code == 200
    assert (await setup.post("/list_models")).status_code == 200, "clients need none"


async def test_without_a_token_only_this_machine_may_register(setup):
    far = {**REGISTRATION, "worker_name": "http://10.0.0.7:21002"}
    reply = await setup.post("/register_worker", far)
    assert reply.status_code == 403 and "--registration-token" in reply.json()["text"]
    setup.controller.token = "secret-1"
    assert (await setup.post("/register_worker", far, headers=TOKEN)).status_code == 200
    inside = {**REGISTRATION, "worker_name": "http://169.254.169.254"}
    assert (await setup.post("/register_worker", inside, headers=TOKEN)).status_code == 403
    assert not setup.workers.seen, "nothing was sent anywhere"


def test_flags_and_environment(monkeypatch, capsys):
    from llava.serve import controller
    from llava.serve.middleware import registration_token

    args = controller.parse_arguments([])
    assert (args.host, args.port, args.dispatch_method) == ("localhost", 21001, "shortest_queue")
    assert registration_token.token_of(args) is None
    monkeypatch.setenv("LLAVA_REGISTRATION_TOKEN", "from-outside")
    assert registration_token.token_of(args) == "from-outside"
    args = controller.parse_arguments(["--registration-token", "given"])
    assert registration_token.token_of(args) == "given"
    assert controller.main(["--registration-token", "zwei\nZeilen"]) == 2
    assert "token" in capsys.readouterr().err


async def test_the_api_describes_itself(setup):
    paths = create_app(setup.controller).openapi()["paths"]
    upstreams = {"/register_worker", "/refresh_all_workers", "/list_models", "/get_worker_address"}
    upstreams |= {"/receive_heart_beat", "/worker_generate_stream", "/worker_get_status"}
    assert upstreams <= set(paths) and all("post" in paths[path] for path in upstreams)
