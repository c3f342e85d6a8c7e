"""A replica without a cluster: it answers as a worker does, and offers what its predictor says."""

from __future__ import annotations

import asyncio
import json
import pickle
import time
from dataclasses import replace

import pytest
from fixtures.known_device import PROFILE
from fixtures.serving import parts_of

from ada.budget import read_budget
from ada.latency.latency_model import Workload
from ada.latency.ttft_predictor import TTFTPredictor
from ada.serve.ray.replica import Replica
from ada.serve.replica_choice import REFUSED, Ask, choose
from ada.serve.replica_offer import offer_of
from llava.serve.engine.request_queue import Load
from llava.serve.protocol.errors import RequestFailure

pytestmark = pytest.mark.anyio
FIELDS = {"model": "tiny", "prompt": "w5 w6", "images": [], "temperature": 0, "max_new_tokens": 6}


@pytest.fixture(scope="module")
def replica(make_adaptive_checkpoint):
    folder = make_adaptive_checkpoint(eos_token_id=None)
    made = Replica(["--model-path", str(folder), "--model-name", "tiny", "--device", "cpu"])
    yield made
    made.service.queue.close()
    assert made.service.engine.join(60)


def ask_of(fields: dict, arrived: float | None = None) -> Ask:
    return Ask.of({**FIELDS, **fields}, time.time() if arrived is None else arrived)


async def answered(replica: Replica, **fields) -> tuple[tuple, bytes]:
    """A reply's head, and its content."""
    head, *pieces = [piece async for piece in replica.generate({**FIELDS, **fields}, "id", ask_of(fields))]
    return head, b"".join(pieces)


async def test_answer_is_a_workers(replica, loaded, make_service, client_of) -> None:
    head, content = await answered(replica)
    assert head == (200, {}, b"")
    async with client_of(make_service()) as worker:
        alone = (await worker.post("/worker_generate_stream", json=FIELDS)).content
    assert parts_of(content)[-1]["text"] == parts_of(alone)[-1]["text"]
    assert parts_of(content)[-1]["usage"] == parts_of(alone)[-1]["usage"]


async def test_refusal_is_a_workers_reply(replica, make_service, client_of) -> None:
    for fields in ({"temperature": -1}, {"prompt": "w5 " * 300}, {"latency_budget": "soon"}):
        (status, headers, content), nothing = await answered(replica, **fields)
        async with client_of(make_service()) as worker:
            reply = await worker.post("/worker_generate_stream", json={**FIELDS, **fields})
        assert status == reply.status_code
        assert {**json.loads(content), "request_id": ""} == {**reply.json(), "request_id": ""}
        assert headers["content-type"] == "application/json" and nothing == b""


@pytest.mark.parametrize("fails", ["accept", "reply"])
async def test_unexpected_error_is_logged_with_its_traceback(replica, monkeypatch, caplog, fails) -> None:
    def fail(*_) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(replica.service if fails == "accept" else replica.service.policy, fails, fail)
    head, content = await answered(replica)
    said = json.loads(head[2]) if fails == "accept" else parts_of(content)[-1]
    [logged] = [record for record in caplog.records if record.exc_info]
    assert said["reason"] == "internal" and said["text"] in logged.getMessage() and "request id:" in logged.getMessage()
    assert logged.exc_info[0] is KeyError
    caplog.clear()
    await answered(replica, temperature=-1)
    assert not [record for record in caplog.records if record.exc_info], "a refusal is no error"


async def test_answer_that_its_client_leaves_is_stopped(replica) -> None:
    answer = replica.generate({**FIELDS, "max_new_tokens": 200}, "id", ask_of({}))
    await anext(answer)
    await anext(answer)
    await answer.aclose()
    deadline = time.monotonic() + 30
    while replica.service.queue.load().running:
        assert time.monotonic() < deadline
        time.sleep(0.01)


async def test_state_and_health_are_the_workers(replica, monkeypatch) -> None:
    state = await replica.state()
    assert (state["reason"], state["model"], state["images"]) == (None, "tiny", True)
    replica.check_health()
    monkeypatch.setattr(type(replica.service.engine), "alive", property(lambda engine: False))
    with pytest.raises(RuntimeError, match="its engine has died"):
        replica.check_health()
    assert replica.record_routing_stats() == {}


async def test_device_without_calibration_offers_nothing(replica, monkeypatch) -> None:
    monkeypatch.setattr(replica, "predictor", None)
    assert replica.record_routing_stats() == {}


async def test_offer_is_for_the_longest_prompt_and_names_what_was_read(replica, monkeypatch) -> None:
    predictor = TTFTPredictor(PROFILE, replica.service.loaded.model.units)
    monkeypatch.setattr(replica, "predictor", predictor)
    long = {"prompt": " ".join(["w7"] * 150)}
    await answered(replica, **long)
    await answered(replica)
    offer = pickle.loads(replica.record_routing_stats()["tiny"])
    longest = replica.service.loaded.tokenizer(long["prompt"]).input_ids
    expected = offer_of(predictor, Workload(len(longest), 0, 0), Load(0, 0, 1, None))
    assert offer.plans == expected.plans and offer.turn_ms == expected.turn_ms
    assert len(long["prompt"]) in {length for length, _ in offer.prompts}


def test_offer_predicts_every_plan_as_the_predictor_does(replica) -> None:
    units = replica.service.loaded.model.units
    predictor = TTFTPredictor(PROFILE, units)
    prompt = Workload(100, 0, 1)
    alone, shared = (offer_of(predictor, prompt, Load(running, 0, 1, None)) for running in (0, 4))
    assert [plan.share for plan in alone.plans] == sorted({plan.share for plan in alone.plans}, reverse=True)
    assert alone.plans[0].share == 1.0 and alone.plans[-1].share == units.fraction(0)
    for plan in alone.plans:
        count = round(plan.share * units.total) - (units.total - units.tunable)
        assert plan.ttft_ms == pytest.approx(predictor.first_token_ms(replace(prompt, num_units=count)))
    assert all(busy.token_ms >= one.token_ms for busy, one in zip(shared.plans, alone.plans, strict=True))
    assert alone.turn_ms > alone.image_ms > 0 and alone.prompt_ms > 0


def test_promises_are_refused_by_a_prompt_of_one_token_alone_whatever_was_read_before(replica) -> None:
    units = replica.service.loaded.model.units
    predictor = TTFTPredictor(PROFILE, units)
    busy = offer_of(predictor, Workload(5000, 0, 8), Load(4, 8, 1, None))
    one_token = Workload(1, 0, 0)
    first_ms, later_ms = predictor.first_token_ms(one_token), predictor.later_ms(one_token)
    assert first_ms < busy.plans[-1].ttft_ms and later_ms < busy.plans[-1].token_ms
    kept = Ask.of({**FIELDS, "latency_budget": f"ttft={first_ms + 0.01}ms,tpot={later_ms + 0.01}ms"}, 0.0)
    assert choose(kept, [(busy, 0.0)], 0.0) == [0]
    for broken in (f"ttft={first_ms - 0.01}ms", f"tpot={later_ms - 0.01}ms"):
        with pytest.raises(RequestFailure) as refused:
            choose(Ask.of({**FIELDS, "latency_budget": broken}, 0.0), [(busy, 0.0)], 0.0)
        assert refused.value.reason == REFUSED


async def test_promise_counts_from_when_the_api_was_asked(replica, monkeypatch) -> None:
    seen = []
    accept = replica.service.accept

    async def noted(body, request_id, arrived=None):
        seen.append(time.perf_counter() - arrived)
        return await accept(body, request_id, arrived)

    monkeypatch.setattr(replica.service, "accept", noted)
    ask = ask_of({"latency_budget": read_budget("ttft=3s")}, arrived=time.time() - 2)
    assert [piece async for piece in replica.generate(FIELDS, "id", ask)]
    assert seen == [pytest.approx(2, abs=0.5)]


async def test_replica_is_not_unloaded_before_a_request_on_its_way_is_accepted(make_adaptive_checkpoint) -> None:
    flags = ["--model-path", str(make_adaptive_checkpoint(eos_token_id=None)), "--model-name", "tiny"]
    replica = Replica([*flags, "--device", "cpu"])
    answer = replica.generate({**FIELDS, "max_new_tokens": 40}, "id", ask_of({}))
    with replica.entrance:
        unloading = asyncio.create_task(asyncio.to_thread(replica.__del__))  # as Ray calls it
        await asyncio.sleep(0.2)
        assert not replica.service.queue.closed
        assert await anext(answer) == (200, {}, b"")
    await unloading
    assert replica.service.queue.closed and replica.record_routing_stats() == {}
    content = b"".join([piece async for piece in answer])
    assert parts_of(content)[-1]["usage"]["completion_tokens"] == 40, "it is answered to its end"
    (status, *_), nothing = await answered(replica)
    assert (status, nothing) == (503, b"")
    assert replica.service.engine.join(60)
