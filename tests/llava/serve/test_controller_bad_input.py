"""Bad requests to a controller: the right status, and a message that names the error."""

import pytest
from httpx import ASGITransport, AsyncClient

from llava.serve.controller import create_app as create_controller

pytestmark = pytest.mark.anyio
LOCAL = "http://localhost:1"
REQUESTS = {
    "register without a name": ("/register_worker", {"check_heart_beat": True}, 422, ["worker_name"]),
    "register a list": ("/register_worker", [], 422, ["body"]),
    "register a path": ("/register_worker", {"worker_name": "/etc", "check_heart_beat": True}, 403, ["/etc"]),
    "register a far address": (
        "/register_worker",
        {"worker_name": "http://10.1.2.3:80", "check_heart_beat": True},
        403,
        [],
    ),
    "a heart beat of a stranger": (
        "/receive_heart_beat",
        {"worker_name": "http://1.2.3.4", "queue_length": 1},
        403,
        [],
    ),
    "a queue below 0": (
        "/receive_heart_beat",
        {"worker_name": "http://localhost:1", "queue_length": -1},
        422,
        ["queue"],
    ),
    "a speed of 0": (
        "/register_worker",
        {
            "worker_name": LOCAL,
            "check_heart_beat": True,
            "worker_status": {"model_names": ["m"], "speed": 0, "queue_length": 0},
        },
        422,
        ["speed"],
    ),
    "a model that is no text": ("/get_worker_address", {"model": 5}, 422, ["model"]),
    "no model": ("/worker_generate_stream", {"prompt": "w5"}, 422, ["model"]),
    "a model with a line break": ("/worker_generate_stream", {"model": "a\nb"}, 422, ["model"]),
    "nobody": ("/worker_generate_stream", {"model": "tiny"}, 503, ["no worker"]),
    "deep": ("/worker_generate_stream", {"model": "m", "x": [[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]}, 400, ["nested"]),
    "a worker of nobody": ("/unregister_worker", {"worker_name": "x" * 400}, 422, ["worker_name"]),
}


@pytest.mark.parametrize("name", REQUESTS)
async def test_controller_bad_request_is_refused_and_named(name):
    path, body, status, words = REQUESTS[name]
    async with AsyncClient(transport=ASGITransport(create_controller()), base_url="http://controller") as client:
        reply = await client.post(path, json=body)
        assert reply.status_code == status, reply.text
        assert all(word in reply.json()["text"] for word in words), reply.text
        assert (await client.post("/list_models")).json() == {"models": []}
