"""A worker's metrics: their names, with plug-ins and without, and what they count."""

from types import SimpleNamespace

import pytest
from fixtures.serving import metric_samples
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from llava.errors import OptionError
from llava.generation import Answer, SamplingParams
from llava.model.multimodal.image_pipeline import PreparedImages
from llava.serve.engine.request import EngineRequest, Finished, GenerationRequest
from llava.serve.engine.request_queue import Load
from llava.serve.worker import metrics
from llava.serve.worker.metrics import WorkerMetrics, metrics_prefix


def test_worker_metrics_without_plug_ins_are_named_after_the_shell(monkeypatch) -> None:
    monkeypatch.setattr(metrics, "hooks", lambda: SimpleNamespace(metrics_prefix=lambda: None))
    registry = CollectorRegistry()
    WorkerMetrics(registry, "tiny", metrics_prefix({}), lambda: Load(2, 1, 4, None), lambda: 0.25)
    samples = metric_samples(generate_latest(registry).decode())
    assert samples["llava:num_requests_waiting"] == 2 and samples["llava:num_requests_running"] == 1
    assert samples["llava:kv_cache_usage_perc"] == 0.25
    assert all(name.startswith("llava:") for name in samples)


# What inference gateways read of a model server that says it is vLLM (llm-d's router, docs/model-server-protocol.md).
GATEWAY_GAUGES = ("vllm:num_requests_waiting", "vllm:num_requests_running", "vllm:kv_cache_usage_perc")


def test_worker_metrics_with_a_prefix_all_have_it_and_gateways_find_their_gauges(make_service, slow_engine) -> None:
    service = make_service({"metrics_prefix": "vllm:"}, metrics_prefix="vllm:", make_engine=slow_engine.make)
    families = text_string_to_metric_families(generate_latest(service.registry).decode())
    kinds = {family.name: family.type for family in families}
    assert all(name.startswith("vllm:") for name in kinds) and "vllm:budget_multiplier" in kinds
    assert {name: kinds[name] for name in GATEWAY_GAUGES} == dict.fromkeys(GATEWAY_GAUGES, "gauge")


@pytest.mark.parametrize("prefix", ["", "v llm:", "vllm-", "9", "vllm:\n", "é"])
def test_metrics_prefix_that_no_name_can_have_is_a_user_error(prefix) -> None:
    with pytest.raises(OptionError, match="--metrics-prefix is"):
        metrics_prefix({"metrics_prefix": prefix})


def test_kv_cache_usage_is_the_share_of_a_context_in_every_slot(make_service, slow_engine, monkeypatch) -> None:
    service = make_service(make_engine=slow_engine.make, slots=2)
    monkeypatch.setattr(service.engine, "positions", lambda: 64, raising=False)
    samples = metric_samples(generate_latest(service.registry).decode())
    assert service.loaded.context_length == 256 and samples["adallava:kv_cache_usage_perc"] == 64 / (2 * 256)


def test_queue_time_is_without_the_reading_of_images() -> None:
    metrics = WorkerMetrics(CollectorRegistry(), "tiny", "llava:", lambda: Load(0, 0, 1, None), lambda: 0.0)
    question = GenerationRequest("w5", PreparedImages(), SamplingParams(), (), {}, 2, "w5")
    request = EngineRequest(question, "one", arrived=10.0, queued=14.0, began=15.0, ended=16.0)
    metrics.record_work(request, Finished(Answer("", [], {}), "", "stop", {}))
    samples = metric_samples(generate_latest(metrics.registry).decode())
    times = [samples[f"llava:{name}_seconds_sum"] for name in ("request_queue_time", "e2e_request_latency")]
    assert times == [1, 6]


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
