"""Random requests, drawn by schemathesis from the OpenAPI documents of controller, worker and API: none gets a 500.

SCHEMATHESIS_EXAMPLES=200 python -m pytest tests/llava/serve/openai_compat/test_openapi_documents.py    # longer
"""

import os

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode

from llava.serve.controller import create_app as create_controller

EXAMPLES = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "6"))  # of each endpoint and mode
QUICK = settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


@pytest.fixture(scope="module")
def addresses(served, listen) -> dict[str, str]:
    """Server name -> address. The controller is a separate one: random registrations must not mix with other tests."""
    separate = listen(create_controller())
    return {"controller": separate.address, "worker": served.worker.address, "api": served.api.address}


def ask(case) -> int:
    """Send one request; return its status. It must not be 500, and a failure must have the server's format."""
    if isinstance(case.body, dict) and isinstance(case.body.get("model"), str):
        case.body["model"] = "tiny"  # a name drawn at random would never get past the first check
    reply = case.call(timeout=600)
    assert reply.status_code != 500, (case.as_curl_command(), reply.text)
    if reply.status_code >= 400:
        said = reply.json()
        assert said["error"]["message"] if "error" in said else said["text"], reply.text
    return reply.status_code


def statuses_of(operation, mode: GenerationMode) -> list[int]:
    """Return the statuses of requests that fit the document (positive mode), or that do not."""
    statuses = []

    @QUICK
    @given(case=operation.as_strategy(generation_mode=mode))
    def one(case) -> None:
        statuses.append(ask(case))

    one()
    return statuses


@pytest.mark.parametrize("server", ["controller", "worker", "api"])
def test_random_requests_never_get_a_500(addresses, server) -> None:
    schema = schemathesis.openapi.from_url(f"{addresses[server]}/openapi.json")
    fitting: list[int] = []
    for found in schema.get_all_operations():
        operation = found.ok()
        fitting += statuses_of(operation, GenerationMode.POSITIVE)
        if len(operation.body):
            assert min(statuses_of(operation, GenerationMode.NEGATIVE)) >= 200
    assert 200 in fitting and len(fitting) > EXAMPLES


def test_openapi_document_lists_every_endpoint(served) -> None:
    monitoring = {"/health", "/ready", "/metrics"}
    paths = {
        served.controller: {"/register_worker", "/refresh_all_workers", "/list_models", "/get_worker_address"}
        | {"/receive_heart_beat", "/worker_generate_stream", "/worker_get_status", "/unregister_worker"}
        | monitoring,
        served.worker: {"/worker_generate_stream", "/worker_get_status"} | monitoring,
        served.api: {"/v1/models", "/v1/models/{model}", "/v1/chat/completions"} | monitoring,
    }
    for server, expected in paths.items():
        document = httpx.get(f"{server.address}/openapi.json", trust_env=False).json()
        assert set(document["paths"]) == expected
    chat = document["paths"]["/v1/chat/completions"]["post"]
    assert "422" not in chat["responses"] and "latency_budget" in str(document["components"]["schemas"])
