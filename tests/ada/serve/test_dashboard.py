"""The documented metrics exist, and the Grafana dashboard names no others."""

import json
import re

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

DOCUMENTED = {
    "time_to_first_token_seconds_bucket": {"le"},
    "inter_token_latency_seconds_bucket": {"le"},
    "e2e_request_latency_seconds_bucket": {"le"},
    "request_queue_time_seconds_bucket": {"le"},
    "num_requests_running": set(),
    "num_requests_waiting": set(),
    "kv_cache_usage_perc": set(),
    "prompt_tokens_total": set(),
    "generation_tokens_total": set(),
    "request_success_total": {"finished_reason"},
    "latency_budget_ratio_bucket": {"le"},
    "plan_cost_ratio_bucket": {"le"},
    "image_tokens_ratio_bucket": {"le"},
    "budget_violations_total": set(),
    "budget_downgrades_total": set(),
    "requests_rejected_total": {"code"},
}
SERIES = re.compile(r"(?:adallava:|(?=http_|process_))\b(\w+)(?:\{(.*?)\})?")
FUNCTIONS = {"sum", "min", "max", "rate", "histogram_quantile", "by"}
ADDED_BY_PROMETHEUS = {"instance"}


@pytest.fixture(scope="module")
def exposed(served) -> dict[str, set[str]]:
    """Each exported series and its labels, after one request was answered and one refused."""
    url = f"{served.worker.address}/worker_generate_stream"
    for body in ({"prompt": "w5", "max_new_tokens": 2, "latency_budget": 0.5}, {"prompt": "w5", "latency_budget": 7}):
        httpx.post(url, json=body, trust_env=False, timeout=600)
    text = httpx.get(f"{served.worker.address}/metrics", trust_env=False).text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {sample.name.removeprefix("adallava:"): set(sample.labels) for sample in samples}


@pytest.fixture(scope="module")
def dashboard(root) -> dict:
    return json.loads((root / "scripts" / "deploy" / "grafana-dashboard.json").read_text(encoding="utf-8"))


def test_worker_exports_the_documented_metrics(exposed) -> None:
    for name, labels in DOCUMENTED.items():
        assert exposed.get(name) == labels | {"model_name"}, name


def test_dashboard_queries_exported_series_only(dashboard, exposed) -> None:
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    expressions += [v["query"]["query"] for v in dashboard["templating"]["list"] if v["type"] == "query"]
    named = [series for expression in expressions for series in SERIES.findall(expression)]
    assert len(named) >= len(expressions) > 10
    for name, selector in named:
        assert name in exposed, name
        assert set(re.findall(r"(\w+)=", selector)) <= exposed[name] | ADDED_BY_PROMETHEUS, (name, selector)
    for expression in expressions:
        assert expression.count("(") == expression.count(")") and expression.count("{") == expression.count("}")
        by = {label for group in re.findall(r"by \(([\w, ]+)\)", expression) for label in re.findall(r"\w+", group)}
        assert by <= set().union(*(exposed[name] for name, _ in SERIES.findall(expression))) | ADDED_BY_PROMETHEUS
        assert set(re.findall(r"\b([a-z_]+)\s*\(", expression)) - FUNCTIONS <= {"label_values"}, expression


def test_dashboard_shows_all_documented_metrics(dashboard) -> None:
    shown = {name for name, _ in SERIES.findall(json.dumps(dashboard))}
    assert set(DOCUMENTED) - shown <= {
        "latency_budget_ratio_bucket",
        "plan_cost_ratio_bucket",
        "image_tokens_ratio_bucket",
    }, "these as means"
    assert {"latency_budget_ratio_sum", "plan_cost_ratio_sum"} <= shown


def test_dashboard_can_be_imported(dashboard) -> None:
    ids = [panel["id"] for panel in dashboard["panels"]]
    positions = [tuple(panel["gridPos"].values()) for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids) and len(set(positions)) == len(positions)
    assert "id" not in dashboard and dashboard["schemaVersion"] >= 36, "an id belongs to one Grafana alone"
    assert all(panel["datasource"]["uid"] == "${datasource}" for panel in dashboard["panels"])
