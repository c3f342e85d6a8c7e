"""Latency budgets in a worker: what a request is granted, and what load changes."""

import asyncio
from types import SimpleNamespace

import pytest
from fixtures.serving import metric_samples
from prometheus_client import CollectorRegistry

from ada.budget import LatencyBudget
from ada.serve.budget_policy import BudgetPolicy, load_controller_from
from ada.serve.load_adaptive import LoadAdaptiveBudget
from ada.serve.load_controller import LoadController
from ada.serve.reachable import TEXT_TOKENS
from llava.errors import OptionError
from llava.model.loaded_model import LoadedModel, open_model
from llava.serve.engine.request_queue import Load
from llava.serve.worker.service import WorkerService


@pytest.mark.anyio
async def test_worker_smaller_budget_runs_less(make_service, client_of) -> None:
    async with client_of(make_service()) as client:
        plans = [(await client.ask(max_new_tokens=2, latency_budget=b))[-1]["latency_budget"] for b in (1, 0.5)]
    assert [plan["heads"][0] for plan in plans] == [16, 8]
    assert plans[0]["prefill_gflops"] > plans[1]["prefill_gflops"]


@pytest.mark.anyio
async def test_worker_budget_below_the_minimum_is_refused_where_it_is_strict(make_service, client_of) -> None:
    async with client_of(make_service()) as client:
        body = {"prompt": "w5", "latency_budget": 0.2, "max_new_tokens": 1}
        adaptive = (await client.ask(**body))[-1]["latency_budget"]
        assert adaptive["met"] is False and adaptive["granted"] == 0.5
        strict = await client.post("/worker_generate_stream", json={**body, "latency_budget_policy": "strict"})
    assert strict.status_code == 400 and "0.2" in strict.json()["text"] and "0.5" in strict.json()["text"]


@pytest.mark.anyio
async def test_worker_without_load_grants_what_is_requested(make_service, client_of) -> None:
    async with client_of(make_service({"adaptive_budget": 0.5, "adaptive_patience": 1e6})) as client:
        assert (await client.ask(max_new_tokens=2))[-1]["latency_budget"]["allowed"] is None


@pytest.mark.anyio
async def test_worker_under_load_lowers_budgets_but_not_strict_ones(make_service, client_of) -> None:
    service = make_service({"adaptive_budget": 0.5, "adaptive_patience": 1e-6, "adaptive_recovery": 1e6})
    async with client_of(service) as client:
        fields = [{}, {"latency_budget": 0.9}, {"latency_budget": 0.9, "latency_budget_policy": "strict"}, {}]
        answers = await asyncio.gather(*(client.ask(max_new_tokens=2, **more) for more in fields))
        metrics = metric_samples((await client.get("/metrics")).text)
    budgets = [parts[-1]["latency_budget"] for parts in answers]
    assert [b["requested"] for b in budgets] == [None, 0.9, 0.9, None]
    lowered = [b for b in budgets if b["load_multiplier"] < 1]
    assert len(lowered) >= 2 and all(b["allowed"] == pytest.approx(0.5, abs=1e-3) for b in lowered)
    assert budgets[2]["allowed"] == 0.9 and budgets[2]["granted"] == 0.875 and budgets[2]["load_multiplier"] == 1
    assert metrics["adallava:budget_downgrades_total"] == len(lowered)


def test_gauge_of_the_factor_is_1_again_after_a_burst(loaded) -> None:
    now, registry = [0.0], CollectorRegistry()
    policy = BudgetPolicy(loaded, {"adaptive_budget": 0.5}, registry)
    policy.adaptive = LoadAdaptiveBudget(policy.adaptive.controller, clock=lambda: now[0])
    policy.adaptive.update(Load(50, 1, 1, 1.0))
    shown = []
    for now[0] in (0.0, 99.0):
        shown.append(registry.get_sample_value("adallava:budget_multiplier", {"model_name": loaded.name}))
    assert shown == [0.5, 1.0]


@pytest.fixture
def tokens_pay(tiny_checkpoint) -> tuple[LoadedModel, BudgetPolicy]:
    """A checkpoint without a scheduler, and its policy: budgets are paid for by image tokens alone."""
    flags = {"image_tokens": "auto", "adaptive_budget": 0.3}
    loaded = open_model({"model_path": str(tiny_checkpoint), "model_name": "tiny", "device": "cpu", **flags})
    return loaded, BudgetPolicy(loaded, flags, CollectorRegistry())


@pytest.mark.anyio
async def test_load_lowers_budgets_to_what_leaving_out_image_tokens_reaches(tokens_pay, client_of, image_text) -> None:
    """The minimum is compared with a real answer, to a prompt as long as the one that is taken for typical."""
    loaded, policy = tokens_pay
    async with client_of(WorkerService(loaded, policy=policy)) as client:
        prompt = "<image>" + " w5" * (TEXT_TOKENS - 1)
        last = (await client.ask(prompt=prompt, images=[image_text], max_new_tokens=1, latency_budget=0.0001))[-1]
    minimum = policy.adaptive.controller.min_scale
    assert minimum == pytest.approx(last["latency_budget"]["prefill_share"], abs=0.02) and minimum < 0.97
    lowered = policy.grant(policy.check({"num_images": 1}), Load(50, 1, 1, 1.0))
    assert lowered["latency_budget"] == LatencyBudget(minimum)


def test_load_does_not_lower_what_is_strict_below_what_every_prompt_reaches(tokens_pay, loaded) -> None:
    _, policy = tokens_pay
    policy.defaults = {**policy.defaults, "strict_latency_budget": True}
    options = policy.grant(policy.check({"num_images": 0}), Load(50, 1, 1, 1.0))
    assert options["latency_budget"] is None and options["strict_latency_budget"], "a text cannot be read in part"
    with_scheduler = BudgetPolicy(loaded, {"adaptive_budget": 0.3, "strict_latency_budget": True}, CollectorRegistry())
    assert with_scheduler.grant({}, Load(50, 1, 1, 1.0))["latency_budget"] == LatencyBudget(0.5)


def test_load_controller_from_model_without_budgets_is_a_user_error() -> None:
    with pytest.raises(OptionError, match="--adaptive-budget needs a model"):
        load_controller_from({"adaptive_budget": 0.5}, SimpleNamespace())


def test_load_controller_from_flags_is_off_by_default_and_keeps_the_models_minimum(loaded) -> None:
    assert load_controller_from({}, loaded.model) is None
    flags = {"adaptive_budget": 0.1, "adaptive_patience": 3.0}
    assert load_controller_from(flags, loaded.model) == LoadController(0.5, max_queue_wait_s=3.0)
