"""Requests that the controller forwards to workers, which answer, refuse, disconnect, or cannot be reached."""

import asyncio
import json

import httpx
import pytest
from fixtures.fake_workers import Pieces, address_of, answering
from fixtures.serving import metric_samples

from llava.serve.protocol.schemas import chunk

pytestmark = pytest.mark.anyio
FULL = json.dumps({"text": "the queue is full", "error_code": 1, "reason": "queue_full"}).encode()


async def test_answer_is_forwarded_unchanged(fleet):
    first, last = chunk("w5 a"), chunk("w5 a b", finish_reason="stop")
    await fleet.add(1, answering(first[:3], first[3:] + last[:9], last[9:]))
    assert (await fleet.ask()).content == first + last


async def test_request_is_forwarded_with_all_fields_and_its_id(fleet):
    requests = []

    def worker(request):
        requests.append((json.loads(request.content), request.headers["X-Request-Id"]))
        return httpx.Response(200, stream=Pieces(chunk("w5")))

    await fleet.add(1, worker)
    body = {"model": "tiny", "prompt": "w5", "latency_budget": 0.5, "images": []}
    reply = await fleet.post("/worker_generate_stream", body, headers={"X-Request-Id": "mine-1"})
    assert requests == [(body, "mine-1")] and reply.headers["X-Request-Id"] == "mine-1"


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ((httpx.ReadError("reset"),), "was lost"),
        ((b'{"text": "w5 b', httpx.RemoteProtocolError("closed")), "was lost"),
        ((b'{"text": "w5 b',), "was lost"),
        ((httpx.ReadTimeout("slow"),), "did not respond in time"),
    ],
)
async def test_worker_lost_in_an_answer_is_reported_after_complete_chunks(fleet, lost, message):
    await fleet.add(1, answering(chunk("w5 a"), *lost))
    first, last = await fleet.parts()
    assert first == {"text": "w5 a", "error_code": 0}
    assert last["error_code"] == 3 and message in last["text"] and address_of(1) in last["text"]


async def test_frame_without_end_is_cut_off(fleet, monkeypatch):
    monkeypatch.setattr("llava.serve.routing.relay.MAX_FRAME_BYTES", 100)
    await fleet.add(1, answering(chunk("w5 a"), b"x" * 60, b"x" * 60, chunk("w5 b")))
    first, last = await fleet.parts()
    assert first["text"] == "w5 a" and last["error_code"] == 3


async def test_lost_worker_that_still_gives_its_status_is_kept(fleet):
    await fleet.add(1, answering(httpx.ReadError("reset")))
    await fleet.parts()
    assert fleet.registry.models() == ["tiny"]


async def test_worker_that_died_in_an_answer_is_forgotten(fleet):
    def worker(request):
        fleet.stop(1)
        return httpx.Response(200, stream=Pieces(chunk("w5 a"), httpx.ReadError("reset")))

    await fleet.add(1, worker)
    assert (await fleet.parts())[-1]["error_code"] == 3
    assert fleet.registry.models() == []


async def test_unreachable_worker_is_forgotten_and_another_one_asked(fleet):
    for port in (1, 2):
        await fleet.add(port, answering(chunk(f"w5 from {port}")))
    fleet.stop(1)
    for _ in range(2):
        assert (await fleet.parts())[-1]["text"] == "w5 from 2"
    assert list(fleet.registry.workers()) == [address_of(2)]


async def test_no_reachable_worker_is_a_502_that_names_those_tried(fleet):
    await fleet.add(2, answering())
    fleet.stop(2)
    reply = await fleet.ask()
    assert reply.status_code == 502 and reply.json()["error_code"] == 3 and address_of(2) in reply.json()["text"]


async def test_full_worker_is_skipped(fleet):
    await fleet.add(1, answering(FULL, status=429))
    await fleet.add(2, answering(chunk("w5 from 2")))
    assert {(await fleet.parts())[-1]["text"] for _ in range(3)} == {"w5 from 2"}


async def test_refusal_of_the_last_full_worker_is_forwarded(fleet):
    for port in (1, 2):
        await fleet.add(port, answering(FULL, status=429, headers={"Retry-After": "7"}))
    reply = await fleet.ask()
    assert reply.status_code == 429 and reply.headers["Retry-After"] == "7"
    assert reply.json()["text"] == "the queue is full" and reply.json()["error_code"] == 1


async def test_bad_request_is_not_sent_to_every_worker(fleet):
    refusal = json.dumps({"text": "temperature: too hot", "error_code": 1, "reason": "bad_request"}).encode()
    for port in (1, 2):
        await fleet.add(port, answering(refusal, status=422))
    reply = await fleet.ask()
    assert reply.status_code == 422 and reply.json()["text"] == "temperature: too hot"
    assert fleet.asked() == 1


@pytest.mark.parametrize("body", [b"<html>", b"", b"[]", b'{"text": 1}'])
async def test_refusal_without_a_reason_names_the_status(fleet, body):
    await fleet.add(1, answering(body, status=500))
    reply = await fleet.ask()
    assert reply.status_code == 500 and "status 500" in reply.json()["text"] and reply.json()["error_code"] == 3


async def test_worker_that_fails_before_its_answer_is_not_asked_again(fleet):
    def failing(request):
        raise httpx.ReadTimeout("slow")

    for port in (1, 2):
        await fleet.add(port, failing)
    reply = await fleet.ask()
    assert reply.status_code == 502 and "did not respond in time" in reply.json()["text"]
    assert fleet.asked() == 1


async def test_no_worker_at_all_is_a_503(fleet):
    reply = await fleet.ask()
    assert reply.status_code == 503 and reply.json()["error_code"] == 2


async def test_unknown_model_is_a_404_that_names_the_served_models(fleet):
    await fleet.add(1, answering())
    reply = await fleet.ask(model="../../etc/passwd")
    assert reply.status_code == 404 and reply.json()["error_code"] == 2 and "tiny" in reply.json()["text"]


async def test_client_that_disconnects_closes_the_workers_answer(fleet, connect):
    closed = asyncio.Event()

    class Endless(httpx.AsyncByteStream):
        async def __aiter__(self):
            while True:
                yield chunk("w5")
                await asyncio.sleep(0)

        async def aclose(self):
            closed.set()

    await fleet.add(1, lambda request: httpx.Response(200, stream=Endless()))
    client = connect(fleet.app, model="tiny")
    while not client.parts():
        await asyncio.sleep(0)
    client.left.set()
    await client.task
    assert closed.is_set()


async def counted(fleet) -> dict[str, float]:
    """Requests for an answer by method and status, as the controller's metrics say."""
    samples = metric_samples((await fleet.client.get("/metrics")).text)
    start = "http_requests_total /worker_generate_stream "
    return {name.removeprefix(start): value for name, value in samples.items() if name.startswith(start)}


FAILED = b'{"text": "it broke", "error_code": 1, "reason": "%s"}\0'


@pytest.mark.parametrize(
    ("pieces", "status"),
    [
        ([b'{"text": "w5", "error_code": 0}\0'], "200"),
        ([b'{"text": "w5", "error_code": 0}\0', FAILED % b"internal"], "500"),
        ([FAILED % b"timeout"], "504"),
        ([FAILED % b"engine_failed"], "503"),
        ([b'{"text": "w5", "error_code": 0}\0', httpx.ReadError("lost")], "502"),
        ([b'{"text": "w5"'], "502"),
        ([b"not JSON\0"], "200"),
        ([], "200"),
    ],
)
async def test_answer_is_counted_once_by_how_it_ends(fleet, pieces, status) -> None:
    await fleet.add(1, answering(*pieces))
    await fleet.ask()
    assert await counted(fleet) == {f"POST {status}": 1}


@pytest.mark.parametrize(
    ("sent", "counted_as"), [(429, 429), (404, 404), (500, 500), (302, 502), (204, 502), (599, 599)]
)
async def test_refusal_of_a_worker_is_counted_under_a_status_of_http(fleet, sent, counted_as) -> None:
    await fleet.add(1, answering(b"{}", status=sent))
    assert (await fleet.ask()).status_code == counted_as
    assert await counted(fleet) == {f"POST {counted_as}": 1}


@pytest.mark.parametrize("path", ["/nowhere", "/" + "x" * 5000, "/%00", "/list_models/", "/health/../x"])
async def test_paths_that_clients_invent_become_no_label(fleet, path) -> None:
    await fleet.client.get(path)
    await fleet.client.request("BREW", "/list_models")
    samples = metric_samples((await fleet.client.get("/metrics")).text)
    handlers = {name.split()[1] for name in samples if name.startswith("http_requests_total ")}
    methods = {name.split()[2] for name in samples if name.startswith("http_requests_total ")}
    assert handlers <= {"none", "/list_models", "/health"} and methods <= {"GET", "other"}


async def test_ready_controller_names_its_models_and_is_not_without_workers(fleet) -> None:
    nothing = await fleet.client.get("/ready")
    assert nothing.status_code == 503 and nothing.json()["reason"] == "no worker is registered"
    await fleet.add(1, answering())
    assert (await fleet.client.get("/ready")).json() == {"ready": True, "reason": None, "models": ["tiny"]}
    fleet.controller.lifecycle.drain()
    assert (await fleet.client.get("/ready")).status_code == 503
    assert (await fleet.ask()).json()["reason"] == "shutting_down"
    assert (await fleet.client.get("/health")).json() == {"status": "ok", "workers": 1}
