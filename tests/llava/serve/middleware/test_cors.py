"""Calls of pages in browsers: which origins may, and what a page can read of refusals."""

import argparse
import logging

import httpx
import pytest
from fixtures.fake_controller import FakeController, asking
from fixtures.serving import metric_samples

from llava.errors import OptionError
from llava.serve.middleware import cors
from llava.serve.openai_api import ChatApi, create_app
from llava.serve.openai_compat.controller_client import ControllerClient

PAGE = "https://chat.example"


def flags(*given: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    cors.add_flag(parser)
    return parser.parse_args(given)


def api(*origins: str) -> httpx.AsyncClient:
    """A client of an API that wants a key, and whose pages are from these origins."""
    controller = ControllerClient("http://controller", httpx.AsyncClient(transport=FakeController()))
    return asking(create_app(ChatApi(controller, keys=("key",), cors_origins=origins)))


PREFLIGHT = {
    "Origin": PAGE,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type",
}


@pytest.mark.anyio
@pytest.mark.parametrize("origins", [(PAGE,), ("https://other.example", PAGE), ("*",)])
async def test_page_of_a_given_origin_may_ask_and_read_refusals(origins) -> None:
    async with api(*origins) as client:
        before = await client.options("/v1/chat/completions", headers=PREFLIGHT)  # browsers send no key with it
        refused = await client.post("/v1/chat/completions", headers={"Origin": PAGE})
        found = await client.get("/v1/models", headers={"Origin": PAGE, "Authorization": "Bearer key"})
    assert before.status_code == 200 and "authorization" in before.headers["Access-Control-Allow-Headers"]
    assert (refused.status_code, found.status_code) == (401, 200)
    for reply in (before, refused, found):
        assert reply.headers["Access-Control-Allow-Origin"] in (PAGE, "*")
    assert "x-request-id" in found.headers["Access-Control-Expose-Headers"].lower()


@pytest.mark.anyio
@pytest.mark.parametrize(("origins", "status"), [((PAGE,), 200), (("https://other.example",), 400), ((), 401)])
async def test_question_before_a_call_is_counted_and_logged_once(origins, status, caplog) -> None:
    caplog.set_level(logging.INFO, "llava.serve.middleware.request_ids")
    async with api(*origins) as client:
        before = await client.options("/v1/chat/completions", headers=PREFLIGHT)
        samples = metric_samples((await client.get("/metrics")).text)
    assert before.headers["X-Request-Id"]
    assert samples[f"http_requests_total /v1/chat/completions OPTIONS {status}"] == 1
    assert [record.getMessage().split()[2:5] for record in caplog.records if "OPTIONS" in record.getMessage()] == [
        ["OPTIONS", "'/v1/chat/completions'", str(status)]
    ]


@pytest.mark.anyio
@pytest.mark.parametrize("origins", [(), ("https://other.example",), ("http://chat.example",)])
async def test_page_of_another_origin_may_not(origins) -> None:
    async with api(*origins) as client:
        before = await client.options("/v1/chat/completions", headers=PREFLIGHT)
        found = await client.get("/v1/models", headers={"Origin": PAGE, "Authorization": "Bearer key"})
    assert before.status_code != 200
    assert "Access-Control-Allow-Origin" not in {**before.headers, **found.headers}


def test_origins_of_flags_are_those_that_browsers_send() -> None:
    given = ("https://chat.example", "http://localhost:3000", "http://[::1]:8080", "*")
    assert cors.origins_of(flags("--cors-origins", *given)) == given
    assert cors.origins_of(flags()) == ()


@pytest.mark.parametrize(
    "origin", ["chat.example", "https://chat.example/", "ftp://a", "https://", "https://u@a", "null"]
)
def test_origins_of_flags_that_are_none_are_user_errors(origin) -> None:
    with pytest.raises(OptionError, match="--cors-origins"):
        cors.origins_of(flags("--cors-origins", origin))
