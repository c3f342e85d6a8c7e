"""What controller, worker and API say of themselves, asked at random by schemathesis: nothing ends in a 500.

SCHEMATHESIS_EXAMPLES=200 python -m pytest tests/serve/test_openapi_documents.py    # longer
"""

import os

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, settings

from llava.serve.controller import create_app as create_controller

EXAMPLES = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "4"))
QUICK = settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


@pytest.fixture(scope="module")
def controller_schema(listen):
    """One that is alone: strangers' registrations must not mix with the others' tests."""
    return schemathesis.openapi.from_url(f"{listen(create_controller()).address}/openapi.json")


@pytest.fixture(scope="module")
def worker_schema(served):
    return schemathesis.openapi.from_url(f"{served.worker.address}/openapi.json")


@pytest.fixture(scope="module")
def api_schema(served):
    return schemathesis.openapi.from_url(f"{served.api.address}/openapi.json")


controller = schemathesis.pytest.from_fixture("controller_schema")
worker = schemathesis.pytest.from_fixture("worker_schema")
api = schemathesis.pytest.from_fixture("api_schema")


def ask(case) -> None:
    """Status 500 is the one that says that something was not foreseen; a failure has the server's form."""
    if isinstance(case.body, dict) and isinstance(case.body.get("model"), str):
        case.body["model"] = "tiny"  # a name drawn at random would never get past the first check
    reply = case.call(timeout=600)
    assert reply.status_code != 500, (case.as_curl_command(), reply.text)
    if reply.status_code >= 400:
        said = reply.json()
        assert said["error"]["message"] if "error" in said else said["text"], reply.text


@controller.parametrize()
@QUICK
def test_controller(case) -> None:
    ask(case)


@worker.parametrize()
@QUICK
def test_worker(case) -> None:
    ask(case)


@api.parametrize()
@QUICK
def test_api(case) -> None:
    ask(case)


def test_every_endpoint_is_documented(served) -> None:
    paths = {
        served.controller: {"/register_worker", "/refresh_all_workers", "/list_models", "/get_worker_address"}
        | {"/receive_heart_beat", "/worker_generate_stream", "/worker_get_status", "/unregister_worker", "/health"},
        served.worker: {"/worker_generate_stream", "/worker_get_status", "/health", "/ready", "/metrics"},
        served.api: {"/v1/models", "/v1/models/{model}", "/v1/chat/completions", "/health"},
    }
    for server, expected in paths.items():
        document = httpx.get(f"{server.address}/openapi.json", trust_env=False).json()
        assert set(document["paths"]) == expected
    chat = document["paths"]["/v1/chat/completions"]["post"]
    assert "422" not in chat["responses"] and "latency_budget" in str(document["components"]["schemas"])
