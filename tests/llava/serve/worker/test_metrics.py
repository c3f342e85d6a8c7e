"""A worker's metrics: their names, with plug-ins and without, and what they count."""

from types import SimpleNamespace

import pytest
from fixtures.serving import metric_samples
from prometheus_client import CollectorRegistry, generate_latest

from llava.serve.engine.request_queue import Load
from llava.serve.worker import metrics
from llava.serve.worker.metrics import WorkerMetrics


def test_worker_metrics_without_plug_ins_are_named_after_the_shell(monkeypatch) -> None:
    monkeypatch.setattr(metrics, "hooks", lambda: SimpleNamespace(metrics_prefix=lambda: None))
    registry = CollectorRegistry()
    WorkerMetrics(registry, "tiny", lambda: Load(2, 1, 4, None))
    samples = metric_samples(generate_latest(registry).decode())
    assert samples["llava:num_requests_waiting"] == 2 and samples["llava:num_requests_running"] == 1
    assert all(name.startswith("llava:") for name in samples)


@pytest.mark.anyio
async def test_worker_metrics_count_answers_and_failures(make_service, client_of):
    async with client_of(make_service()) as client:
        before = metric_samples((await client.get("/metrics")).text)
        await client.ask(prompt="w5 w6", max_new_tokens=4, latency_budget=0.5)
        await client.ask(prompt="w5", max_new_tokens=1, latency_budget=0.2)
        await client.post("/worker_generate_stream", json={"prompt": "w5", "latency_budget": 7})
        after = metric_samples((await client.get("/metrics")).text)
    assert before["adallava:generation_tokens_total"] == 0
    expected = {
        "prompt_tokens_total": 3 + 2,
        "generation_tokens_total": 5,
        "time_to_first_token_seconds_count": 2,
        "inter_token_latency_seconds_count": 3,
        "e2e_request_latency_seconds_count": 2,
        "request_queue_time_seconds_count": 2,
        "num_requests_running": 0,
        "num_requests_waiting": 0,
        "request_success_total length": 2,
        "latency_budget_ratio_sum": 1.0,
        "plan_cost_ratio_sum": 1.0,
        "budget_violations_total": 1,
        "budget_downgrades_total": 0,
        "requests_rejected_total 400": 1,
        "budget_multiplier": 1,
    }
    assert {name: after[f"adallava:{name}"] for name in expected} == expected
