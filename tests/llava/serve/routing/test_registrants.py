"""Who may speak for workers: by the secret, or by coming from the controller's machine."""

import asyncio

import httpx
import pytest
from fixtures.fake_workers import STATUS, address_of, answering

pytestmark = pytest.mark.anyio
BODY = {"worker_name": address_of(1), "check_heart_beat": True, "worker_status": STATUS, "queue_length": 5}
PATHS = ["/register_worker", "/receive_heart_beat", "/unregister_worker"]
STRANGERS = ["10.0.0.7", "192.168.1.2", "203.0.113.9", "::ffff:10.0.0.7", "2001:db8::1", "testclient", "", "0.0.0.0"]
OWN = ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"]
TOKEN = {"Authorization": "Bearer secret-1"}


def client_at(app, host: str) -> httpx.AsyncClient:
    """A client whose requests come from ``host``."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(app, client=(host, 5)), base_url="http://controller")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("host", STRANGERS)
async def test_stranger_without_a_token_is_refused_whatever_worker_it_names(fleet, path, host) -> None:
    await fleet.add(1, answering())
    async with client_at(fleet.app, host) as client:
        reply = await client.post(path, json={**BODY, "worker_name": address_of(1)})
        other = await client.post(path, json={**BODY, "worker_name": f"http://{host or 'a'}:5"})
    assert reply.status_code == 403 and "--registration-token" in reply.json()["text"]
    assert other.status_code == 403
    assert list(fleet.registry.workers()) == [address_of(1)]
    assert fleet.registry.total().queue_length == 0, "no heartbeat was recorded"


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("host", OWN)
async def test_sender_of_this_machine_needs_no_token(fleet, path, host) -> None:
    async with client_at(fleet.app, host) as client:
        assert (await client.post(path, json=BODY)).status_code == 200


async def test_sender_at_the_address_it_sends_to_is_of_this_machine(fleet) -> None:
    transport = httpx.ASGITransport(fleet.app, client=("10.0.0.5", 5))
    async with httpx.AsyncClient(transport=transport, base_url="http://10.0.0.5:21001") as client:
        assert (await client.post("/register_worker", json=BODY)).status_code == 200


@pytest.mark.parametrize("path", PATHS)
async def test_stranger_with_the_token_is_accepted(fleet, path) -> None:
    fleet.controller.token = "secret-1"
    async with client_at(fleet.app, "10.0.0.7") as client:
        assert (await client.post(path, json=BODY)).status_code == 403
        remote = {**BODY, "worker_name": "http://10.0.0.7:21002"}
        assert (await client.post(path, json=remote, headers=TOKEN)).status_code == 200


@pytest.mark.parametrize("path", [*PATHS, "/refresh_all_workers"])
@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:3000"])
async def test_page_in_a_browser_of_this_machine_speaks_for_no_worker(fleet, path, origin) -> None:
    await fleet.add(1, answering())
    fleet.stop(1)
    async with client_at(fleet.app, "127.0.0.1") as client:
        assert (await client.post(path, json=BODY, headers={"Origin": origin})).status_code == 403
    assert list(fleet.registry.workers()) == [address_of(1)] and fleet.registry.total().queue_length == 0


async def test_worker_that_leaves_while_all_are_asked_is_not_registered_again(fleet) -> None:
    await fleet.add(1, answering())
    await fleet.add(2, answering())
    asked, answer = asyncio.Event(), asyncio.Event()
    handle = fleet.workers.handle_async_request

    async def slow(request: httpx.Request) -> httpx.Response:
        asked.set()
        await answer.wait()
        return await handle(request)

    fleet.workers.handle_async_request = slow
    refresh = asyncio.create_task(fleet.post("/refresh_all_workers"))
    await asked.wait()
    assert (await fleet.post("/unregister_worker", {"worker_name": address_of(2)})).json() == {"exist": True}
    answer.set()
    assert (await refresh).status_code == 200
    assert list(fleet.registry.workers()) == [address_of(1)]


@pytest.mark.parametrize("token", [None, "secret-1"])
async def test_refresh_needs_the_token_or_this_machine(fleet, token) -> None:
    await fleet.add(1, answering())
    fleet.stop(1)
    fleet.controller.token = token
    async with client_at(fleet.app, "10.0.0.7") as client:
        assert (await client.post("/refresh_all_workers", json={})).status_code == 403
        assert list(fleet.registry.workers()) == [address_of(1)]
        with_token = await client.post("/refresh_all_workers", json={}, headers=TOKEN)
        assert with_token.status_code == (403 if token is None else 200)
    assert (await fleet.post("/refresh_all_workers")).status_code == 200
    assert fleet.registry.workers() == {}
