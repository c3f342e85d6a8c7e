"""Request ids: which are kept, which are made, where they appear; what a failing application becomes."""

import logging

import httpx
import pytest
from fastapi import FastAPI, Request

from llava.serve.middleware.body_limits import UnreadAnswer
from llava.serve.middleware.request_ids import HEADER, RequestIds
from llava.serve.protocol.errors import request_id_of

pytestmark = pytest.mark.anyio


@pytest.fixture
async def client():
    app = FastAPI()
    app.add_middleware(RequestIds, quiet=("/id",))

    @app.get("/id")
    async def request_id(request: Request) -> str:
        return request_id_of(request)

    @app.get("/fail")
    async def fail() -> None:
        raise RuntimeError("secret detail")

    @app.get("/unread")
    async def unread() -> None:
        raise UnreadAnswer("the client left its answer unread")

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as client:
        yield client


async def test_plain_id_of_the_client_is_kept(client) -> None:
    reply = await client.get("/id", headers={HEADER: "mine-1.a_b"})
    assert reply.headers[HEADER] == reply.json() == "mine-1.a_b"


@pytest.mark.parametrize("given", ["", "two words", "a" * 65, "a\tb", "<script>"])
async def test_id_that_is_not_a_plain_word_is_replaced(client, given: str) -> None:
    reply = await client.get("/id", headers={HEADER: given})
    assert reply.headers[HEADER] == reply.json() != given
    assert len(reply.json()) == 16


async def test_unhandled_exception_is_a_500_that_names_the_id_only(client, caplog) -> None:
    reply = await client.get("/fail", headers={HEADER: "one"})
    assert reply.status_code == 500 and reply.json()["reason"] == "internal" and "one" in reply.json()["text"]
    assert "secret detail" not in reply.text and "secret detail" in caplog.text


async def test_quiet_path_is_logged_for_debugging_only(client, caplog) -> None:
    caplog.set_level(logging.DEBUG, "llava.serve.middleware.request_ids")
    await client.get("/id")
    await client.get("/nowhere")
    levels = [record.levelno for record in caplog.records if record.name.endswith("request_ids")]
    assert levels == [logging.DEBUG, logging.INFO]
