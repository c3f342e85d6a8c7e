"""Promises of time in a worker: what a budget promises, what load leaves of it, and what is refused."""

import asyncio
import json
import time
from dataclasses import replace

import pytest
from fixtures.known_device import PROFILE
from prometheus_client import CollectorRegistry

from ada.budget import read_budget
from ada.image_tokens.amount import ImageTokens
from ada.latency.latency_model import Workload
from ada.latency.ttft_predictor import TTFTPredictor
from ada.serve.budget_policy import BudgetPolicy
from ada.serve.time_promise import minimum_s, time_promise
from llava.serve.engine.batch_engine import BatchEngine
from llava.serve.engine.request_queue import Load
from llava.serve.worker.app import request_model
from llava.serve.worker.service import WorkerService

LATER = 9  # tokens after the first


@pytest.fixture
def predictor(loaded) -> TTFTPredictor:
    return TTFTPredictor(PROFILE, loaded.model.units)


@pytest.fixture
def policy(loaded, predictor) -> BudgetPolicy:
    calibrated = replace(loaded, options={**loaded.options, "ttft_predictor": predictor})
    return BudgetPolicy(calibrated, {"adaptive_budget": 0.5}, CollectorRegistry())


def fields_of(budget: str, **others) -> dict:
    return {"latency_budget": read_budget(budget), "num_crops": 0, "image_tokens": None, **others}


def test_promise_takes_what_the_cheapest_plan_is_predicted_to(loaded, predictor) -> None:
    first_s, work_s = minimum_s(loaded.model, predictor, fields_of("1s"), 40, LATER + 1)
    prompt = Workload(41, 0, 0)  # and the latency token
    step_ms = predictor.later_ms(replace(prompt, num_tokens=41 + LATER // 2), LATER)
    slower = PROFILE.token_spread / predictor.token_factor
    assert first_s == pytest.approx(predictor.first_token_ms(prompt) / 1000)
    assert work_s == pytest.approx(first_s + LATER * slower * step_ms / 1000)
    promise = time_promise(loaded.model, predictor, fields_of("ttft=2s"), 40, LATER + 1)
    assert promise.due_s - promise.work_s == pytest.approx(2 - first_s)


def test_promise_counts_the_time_of_every_crop(loaded, predictor) -> None:
    first_s, _ = minimum_s(loaded.model, predictor, fields_of("1s", num_images=1, num_crops=5), 40, 1)
    assert first_s == pytest.approx(predictor.first_token_ms(Workload(41, 0, 5)) / 1000)
    assert first_s > predictor.first_token_ms(Workload(41, 0, 1)) / 1000


@pytest.mark.parametrize("tokens", ["25%", "1"])
def test_prompt_with_fewer_tokens_than_its_crops_have_takes_the_time_of_some(loaded, predictor, tokens) -> None:
    """A checkpoint may leave out the padding of crops."""
    fields = fields_of("1s", num_crops=20, image_tokens=ImageTokens.parse(tokens))
    first_s, _ = minimum_s(loaded.model, predictor, fields, 40, 1)
    assert first_s > predictor.first_token_ms(Workload(1, 0, 20)) / 1000


def test_share_promises_nothing(loaded, predictor) -> None:
    assert time_promise(loaded.model, predictor, fields_of("0.5"), 40, 10) is None


@pytest.mark.parametrize(("budget", "is_due"), [("tpot=20ms", False), ("ttft=1s,tpot=20ms", True)])
def test_pace_takes_what_the_cheapest_plan_takes_alone_and_the_full_one_among_others(
    loaded, predictor, budget, is_due
) -> None:
    promise = time_promise(loaded.model, predictor, fields_of(budget), 40, LATER + 1)
    assert promise.is_due == is_due and promise.pace.token_s == 0.02
    alone = Workload(41 + LATER // 2, 0, 0)
    full = replace(alone, num_units=predictor.units.tunable, num_tokens=3 * alone.num_tokens, rows=3)
    slower = PROFILE.token_spread / predictor.token_factor
    for rows, step in ((1, alone), (3, full)):
        assert promise.pace.minimum_s(rows) == pytest.approx(slower * predictor.later_ms(step, LATER) / 1000)


def test_grant_takes_no_more_than_load_leaves_and_reports_what_was_asked(policy) -> None:
    fields = fields_of("ttft=4s,total=9s")
    free = policy.grant(fields, Load(0, 1, 1, None, elapsed_s=1.0))
    assert free["latency_budget"].clauses() == [("ttft", 3000), ("total", 8000)]
    shared = policy.grant(fields, Load(2, 1, 1, None, first_token_s=0.25, elapsed_s=1.0))
    assert shared["latency_budget"].clauses() == [("ttft", 250), ("total", 8000)]
    strict = policy.grant({**fields, "latency_budget_policy": "strict"}, Load(2, 1, 1, None, 0.0, 0.25, 1.0))
    assert strict["latency_budget"].clauses() == free["latency_budget"].clauses()
    assert policy.adaptive.multiplier == 1, "time before the queue is no load"


def test_what_load_takes_of_a_strict_time_is_no_reason_to_refuse_it(policy) -> None:
    policy.defaults = {**policy.defaults, "strict_latency_budget": True}
    fields = fields_of("ttft=4s,total=9s")
    free = policy.grant(fields, Load(0, 1, 1, None, elapsed_s=1.0))
    shared = policy.grant(fields, Load(2, 1, 1, None, first_token_s=0.25, elapsed_s=1.0))
    assert free["strict_latency_budget"] is True and shared["strict_latency_budget"] is False
    asked = policy.grant({**fields, "latency_budget_policy": "strict"}, Load(2, 1, 1, None, first_token_s=0.25))
    assert asked["strict_latency_budget"] is True


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("budget", "status", "reason", "said"),
    [
        ("9s", 503, "promise_out_of_reach", "latency_budget is 9s, and the wait has left less than"),
        ("ttft=9s,total=9s", 503, "promise_out_of_reach", "less than the ttft="),
        ("2ms", 400, "bad_request", "--latency-budget is 2ms"),
    ],
)
async def test_strict_time_is_refused_as_it_was_asked_and_as_load_where_only_its_wait_is_too_long(
    loaded, predictor, client_of, budget, status, reason, said
) -> None:
    calibrated = replace(loaded, options={**loaded.options, "ttft_predictor": predictor})
    service = WorkerService(calibrated, policy=BudgetPolicy(calibrated, {}, CollectorRegistry()))
    body = {"prompt": "w5", "temperature": 0, "latency_budget": budget, "latency_budget_policy": "strict"}
    async with client_of(service):
        stream = await service.accept(request_model()(**body), "one", time.perf_counter() - 10)
        *_, last = [json.loads(chunk[:-1]) async for chunk in stream.chunks(service.policy)]
        await service.close(stream)
    assert (last["status"], last["reason"]) == (status, reason) and said in last["text"]


@pytest.mark.anyio
async def test_worker_refuses_at_once_what_cannot_be_in_time_and_keeps_the_rest(loaded, policy, client_of) -> None:
    calibrated = replace(loaded, options={**loaded.options, "ttft_predictor": policy.predictor})
    service = WorkerService(calibrated, policy=policy, slots=1, make_engine=BatchEngine)
    async with client_of(service) as client:
        body = {"prompt": "w5", "max_new_tokens": 3, "latency_budget": "total=1ms"}
        refused = await client.post("/worker_generate_stream", json=body)
        assert refused.status_code == 503 and "give it more time" in refused.json()["text"]
        assert refused.json()["reason"] == "promise_out_of_reach"
        asked = [client.ask(max_new_tokens=3, latency_budget=f"total={90 - at}s") for at in range(4)]
        answers = await asyncio.gather(*asked)
    budgets = [parts[-1]["latency_budget"] for parts in answers]
    assert all(budget["met"] and budget["clauses"][0]["name"] == "total" for budget in budgets)
    assert [budget["clauses"][0]["requested_ms"] for budget in budgets] == [90000, 89000, 88000, 87000]
