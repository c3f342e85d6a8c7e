"""The demo's client of a controller."""

import socket

import httpx
import pytest

from llava.serve.web import client as client_module
from llava.serve.web.client import ServingError, WebClient


def test_web_client_unreachable_controller_is_named_with_the_flag() -> None:
    client = WebClient("http://127.0.0.1:9/")
    for ask in (client.models, lambda: client.worker_state("m"), lambda: list(client.answer({}))):
        with pytest.raises(ServingError, match=r"http://127\.0\.0\.1:9 cannot be reached.*--controller-url"):
            ask()


@pytest.mark.parametrize(
    "reply", [httpx.Response(200, text="<html>"), httpx.Response(200, json=[]), httpx.Response(200, json={"models": 5})]
)
def test_web_client_of_another_server_says_so(reply) -> None:
    client = WebClient("http://other")
    client._client = httpx.Client(transport=httpx.MockTransport(lambda request: reply))
    with pytest.raises(ServingError, match=r"http://other is no controller.*--controller-url"):
        client.models()
    with pytest.raises(ServingError):
        client.worker_state("m")


def test_web_client_does_not_wait_for_a_stopped_controller(monkeypatch) -> None:
    monkeypatch.setattr(client_module, "SHORT_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as stopped:
        client = WebClient(f"http://127.0.0.1:{stopped.getsockname()[1]}")
        for ask in (client.models, lambda: client.worker_state("m")):
            with pytest.raises(ServingError, match="timed out"):
                ask()


def client_of(ready: httpx.Response | Exception) -> WebClient:
    """A client whose model's worker answers ``/ready`` like this."""

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/get_worker_address":
            return httpx.Response(200, json={"address": "http://worker"})
        if isinstance(ready, Exception):
            raise ready
        return ready

    client = WebClient("http://controller")
    client._client = httpx.Client(transport=httpx.MockTransport(answer))
    return client


@pytest.mark.parametrize(
    ("ready", "mode"),
    [
        (httpx.Response(200, json={"conv_mode": "v1"}), "v1"),
        (httpx.Response(503, json={"conv_mode": "v1", "ready": False}), "v1"),
        (httpx.Response(200, json={"conv_mode": None}), ""),
        (httpx.Response(404, json={"detail": "Not Found"}), None),
    ],
)
def test_web_client_conv_mode_is_what_the_worker_names(ready, mode) -> None:
    assert client_of(ready).worker_state("m")["conv_mode"] == mode


@pytest.mark.parametrize(
    "ready",
    [
        httpx.ReadTimeout("slow"),
        httpx.ConnectError("refused"),
        httpx.Response(502, text="bad gateway"),
        httpx.Response(200, json={"conv_mode": "next_year"}),
    ],
)
def test_web_client_conv_mode_is_not_guessed(ready) -> None:
    with pytest.raises(ServingError, match="template"):
        client_of(ready).worker_state("m")
