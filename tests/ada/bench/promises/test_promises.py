"""The benchmark of promises: what it draws, and what it counts of a server that answers as the test says."""

import asyncio
import json
import math

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse

from ada.bench.__main__ import main
from ada.bench.load.workload import LoadRequest
from ada.bench.promises.requests import KINDS, promised_requests

ALONE = {"ttft": 20.0, "tpot": 2.0, "total": 90.0}
FIRST_S, REST_S = 0.03, 0.05
REFUSAL = {"error": {"code": "promise_out_of_reach", "message": "no"}}


def chunk(text: str = "", **fields) -> str:
    return f"data: {json.dumps({'choices': [{'delta': {'content': text}}], **fields})}\n\n"


def slow_server() -> FastAPI:
    """A server that takes 80 ms, and answers by the numbers of the requests that have a promise.

    It refuses the first of eight before its answer, the second as the answer would begin, loses the third, gives the
    fourth up with an error and the fifth with status 500; the sixth it cuts, as its time is over.
    """
    app = FastAPI()
    app.state.promised = 0

    @app.post("/v1/chat/completions")
    async def complete(request: Request):
        body = await request.json()
        number = None
        if "latency_budget" in body:
            number = app.state.promised % 8
            app.state.promised += 1
        if number == 0:
            return JSONResponse(REFUSAL, 503)
        if number == 4:
            return JSONResponse({"error": {"code": "worker_failed", "message": "no"}}, 500)

        async def stream():
            if number == 1:
                yield f"data: {json.dumps(REFUSAL)}\n\n"
                return
            await asyncio.sleep(FIRST_S)
            yield chunk("a ")
            if number == 2:
                return
            if number == 3:
                yield f"data: {json.dumps(REFUSAL)}\n\n"
                return
            await asyncio.sleep(REST_S)
            clauses = [{"name": "ttft", "measured_ms": 0.001}, {"name": "total", "measured_ms": 0.001}]
            yield chunk("b", llava={"latency_budget": {"granted": 0.5, "clauses": clauses}})
            if number == 5:
                yield f"data: {json.dumps({'choices': [{'delta': {}, 'stop_reason': 'time'}]})}\n\n"
            yield chunk(usage={"completion_tokens": 2})
            yield "data: [DONE]\n\n"

        return StreamingResponse(stream(), media_type="text/event-stream")

    return app


def test_promises_are_drawn_between_multiples_of_the_times_alone() -> None:
    asked = [LoadRequest("What?", None, None)] * 400
    drawn = [*promised_requests(asked, ALONE, (3, 30), seed=1, long=24)]
    for number, request in enumerate(drawn):
        assert (*request.promised,) == KINDS[number % len(KINDS)]
        factors = {round(allowed / ALONE[name], 6) for name, allowed in request.promised.items()}
        assert len(factors) <= 1 and all(3 <= factor <= 30 for factor in factors)
    logarithms = [math.log(r.promised["ttft"] / ALONE["ttft"]) for r in drawn if "ttft" in r.promised]
    assert sum(logarithms) / len(logarithms) == pytest.approx(math.log(90) / 2, abs=0.15)
    assert 0.4 < sum(request.min_tokens == 24 for request in drawn) / len(drawn) < 0.6
    body = drawn[3].body("m", 32)
    assert body["latency_budget"].startswith("ttft=") and ",tpot=" in body["latency_budget"] and body["stream"]


@pytest.mark.parametrize(("slack", "kept_by_client"), [((0.1, 0.5), False), ((20, 40), True)])
def test_answers_refusals_and_losses_are_counted_by_the_clients_clock(slack, kept_by_client, listen, capsys) -> None:
    url = f"{listen(slow_server()).address}/v1"
    flags = ["--model", "m", "--requests", "40", "--at-once", "4", "--slack", *map(str, slack)]
    assert main(["promises", "--endpoint", url, *flags]) == 0
    report = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert 1000 * FIRST_S < report["alone_ms"]["ttft"] < report["alone_ms"]["total"]
    assert report["alone_ms"]["total"] > 1000 * (FIRST_S + REST_S)
    [of] = report["endpoints"].values()
    assert (of["requests"], of["promised"], of["accepted"], of["answered"], of["cut"]) == (40, 32, 24, 12, 4)
    assert of["refused"] == {"503 promise_out_of_reach": 4, "200 promise_out_of_reach": 4} and of["lost"] == 12
    assert of["kept"] == (12 if kept_by_client else 0)
    assert of["mean_share"] == 0.5
    without_pace = sum(of["kept_by_clauses"].get(kind, [0, 0])[1] for kind in ("ttft", "total", "ttft,total"))
    assert of["kept_by_server"] == (12 if kept_by_client else without_pace)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--at-once", "0"], "from 1 up"),
        (["--slack", "9", "3"], "in order"),
        (["--endpoint", "http://x/v1"], "--model"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(flags, said, capsys) -> None:
    assert main(["promises", *flags]) == 2
    assert said in capsys.readouterr().err
