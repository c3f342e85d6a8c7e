"""Replies to failed requests: status, error code, reason, message, headers."""

import json

import pytest
from fastapi import FastAPI, HTTPException
from fastapi.testclient import TestClient
from pydantic import BaseModel

from llava.errors import OptionError
from llava.serve.protocol import errors
from llava.serve.protocol.errors import RequestFailure


class Numbers(BaseModel):
    numbers: list[int]


@pytest.fixture
def client() -> TestClient:
    app = FastAPI()
    errors.install(app)

    @app.post("/numbers")
    def numbers(body: Numbers) -> None: ...

    @app.post("/fail/{what}")
    def fail(what: str) -> None:
        raise {
            "failure": RequestFailure(429, "queue_full", "full", retry_after=7),
            "user": OptionError("--flag is 3"),
            "http": HTTPException(418, headers={"X-Kind": "teapot"}),
        }[what]

    return TestClient(app)


def test_request_failure_reply_has_code_reason_message_and_retry_after(client) -> None:
    reply = client.post("/fail/failure")
    assert reply.status_code == 429 and reply.headers["Retry-After"] == "7"
    assert reply.json() == {"text": "full", "error_code": 1, "reason": "queue_full", "request_id": None}


def test_user_error_is_a_bad_request_with_its_message(client) -> None:
    reply = client.post("/fail/user")
    assert reply.status_code == 400
    assert reply.json()["reason"] == "bad_request" and reply.json()["text"] == "--flag is 3"


def test_http_exception_keeps_status_and_headers(client) -> None:
    reply = client.post("/fail/http")
    assert reply.status_code == 418 and reply.headers["X-Kind"] == "teapot"
    assert reply.json()["text"].startswith("POST /fail/http: ")


def test_unknown_path_names_method_and_path(client) -> None:
    assert client.get("/nowhere").json()["text"] == "GET /nowhere: Not Found"


def test_invalid_field_is_named_and_its_value_is_not_quoted(client) -> None:
    reply = client.post("/numbers", json={"numbers": [1, "secret-value"]})
    assert reply.status_code == 422
    assert "numbers.1: " in reply.json()["text"] and "secret-value" not in reply.json()["text"]


def test_many_invalid_fields_are_reported_up_to_five(client) -> None:
    reply = client.post("/numbers", json={"numbers": ["x"] * 50})
    assert reply.json()["text"].count("numbers.") == 5


def test_body_that_is_not_json_is_a_bad_request(client) -> None:
    reply = client.post("/numbers", content=b"{", headers={"Content-Type": "application/json"})
    assert reply.status_code == 400 and "not JSON" in reply.json()["text"]


def test_body_that_is_not_an_object_says_what_to_send(client) -> None:
    reply = client.post("/numbers", content=b"1", headers={"Content-Type": "text/plain"})
    assert reply.status_code == 422 and "Content-Type: application/json" in reply.json()["text"]


def test_message_that_utf8_cannot_encode_is_escaped() -> None:
    failure = RequestFailure(400, "bad_request", "odd \ud800")
    assert json.loads(failure.chunk("one")[:-1])["text"] == "odd \\ud800"


@pytest.mark.parametrize(("status", "passed_on"), [(429, 429), (503, 503), (204, 502), (302, 502)])
def test_failure_of_reply_keeps_code_reason_message_and_retry_after(status: int, passed_on: int) -> None:
    content = json.dumps({"text": "full", "error_code": 1, "reason": "queue_full"}).encode()
    failure = errors.failure_of_reply(status, {"Retry-After": "7"}, content)
    assert failure == RequestFailure(passed_on, "queue_full", "full", 1, retry_after=7)


@pytest.mark.parametrize("content", [b"", b"<html>", b"[]", b'{"text": 1}'])
def test_failure_of_reply_without_a_failure_raises(content: bytes) -> None:
    with pytest.raises(ValueError, match="Failure"):
        errors.failure_of_reply(500, {}, content)


@pytest.mark.parametrize(
    "failure",
    [
        RequestFailure(503, "promise_out_of_reach", "late"),
        RequestFailure(503, "timeout", "it waited too long"),
        RequestFailure(504, "timeout", "it took too long"),
    ],
)
def test_failure_in_stream_keeps_its_status(failure) -> None:
    assert errors.failure_in_stream(json.loads(failure.chunk("one")[:-1])) == failure


@pytest.mark.parametrize("status", [None, 200, 7, "503", [503]])
@pytest.mark.parametrize(("reason", "expected"), [("promise_out_of_reach", 503), ("timeout", 504), ("other", 500)])
def test_failure_in_stream_without_a_status_has_that_of_its_reason(status, reason, expected) -> None:
    assert errors.failure_in_stream({"text": "no", "reason": reason, "status": status}).status == expected


def test_no_worker_names_the_served_models() -> None:
    failure = errors.no_worker("other", ["a", "b"])
    assert failure.status == 404 and failure.param == "model" and "there are: a, b" in failure.message


def test_no_worker_without_any_worker_is_a_503() -> None:
    assert errors.no_worker("other", []).status == 503
