"""What the OpenAI-style API answers when the controller, or a worker, fails."""

import json

import httpx
import pytest
from fixtures.fake_controller import api_app, asking

from llava.serve.protocol.schemas import chunk

pytestmark = pytest.mark.anyio
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "w5"}]}
# name: (the controller's replies, status, words of the message)
FAILURES = {
    "no worker of the model": ({"get_worker_address": {"address": ""}}, 404, "there are: tiny"),
    "no worker at all": (
        {"get_worker_address": {"address": ""}, "list_models": {"models": []}},
        503,
        "no worker is registered",
    ),
    "controller unreachable": ({"get_worker_address": httpx.ConnectError("refused")}, 503, "cannot be reached"),
    "controller lost": ({"worker_generate_stream": httpx.ReadTimeout("slow")}, 502, "was lost (ReadTimeout)"),
    "answer cut off": ({"worker_generate_stream": chunk("half")}, 502, "without its finish_reason"),
    "empty answer": ({"worker_generate_stream": b""}, 502, "without its finish_reason"),
    "worker lost": ({"worker_generate_stream": chunk("lost", 3, reason="worker_lost")}, 502, "lost"),
    "worker timed out": ({"worker_generate_stream": chunk("slow", 1, reason="timeout")}, 504, "slow"),
    "another server": ({"get_worker_address": b"<html>"}, 502, "is no controller"),
    "a list": ({"get_worker_address": b"[]"}, 502, "is no controller"),
    "models that are none": ({"get_worker_address": {"address": ""}, "list_models": {"models": 5}}, 502, "no models"),
    "answer that is not JSON": ({"worker_generate_stream": b"<html>\0"}, 502, "not what workers"),
    "answer without text": ({"worker_generate_stream": b'{"error_code": 0}\0'}, 502, "has no text"),
    "answer of a number": ({"worker_generate_stream": b"5\0"}, 502, "not what workers"),
    "unknown finish_reason": (
        {"worker_generate_stream": chunk("a", finish_reason="tired", usage={})},
        502,
        "finish_reason",
    ),
    "usage that is none": ({"worker_generate_stream": chunk("a", finish_reason="stop", usage=5)}, 502, "usage"),
    "bad request": ({"worker_generate_stream": chunk("no", 1, reason="bad_request")}, 400, "no"),
}


@pytest.mark.parametrize("name", FAILURES)
async def test_failure_becomes_a_status_and_a_message(name: str) -> None:
    replies, status, words = FAILURES[name]
    async with asking(api_app(**replies)) as client:
        reply = await client.post("/v1/chat/completions", json=CHAT)
    assert reply.status_code == status and words in reply.json()["error"]["message"], reply.text


@pytest.mark.parametrize("name", [name for name in FAILURES if "worker_generate_stream" in FAILURES[name][0]])
async def test_failure_of_a_stream_is_its_last_event(name: str) -> None:
    replies, status, words = FAILURES[name]
    async with asking(api_app(**replies)) as client:
        reply = await client.post("/v1/chat/completions", json={**CHAT, "stream": True})
    if reply.status_code != 200:  # it came before the answer
        assert reply.status_code == status
        return
    *_, error, done = reply.text.strip().split("\n\n")
    assert words in json.loads(error.removeprefix("data: "))["error"]["message"] and done == "data: [DONE]"


@pytest.mark.parametrize("name", ["org/model", "tiny", "a/b/c", "weights v1.5"])
async def test_model_is_found_by_its_name_with_slashes(name: str) -> None:
    async with asking(api_app(list_models={"models": [name]})) as client:
        found, missing = await client.get(f"/v1/models/{name}"), await client.get(f"/v1/models/{name}/x")
    assert found.status_code == 200 and found.json()["id"] == name
    assert missing.status_code == 404 and missing.json()["error"]["code"] == "model_not_found"
