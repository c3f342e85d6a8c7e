"""Threads that generate on one model at the same time: nothing of a call is kept on the model."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from ada.budget import TimeBudget
from ada.latency.device_profile import DeviceFingerprint, Profile
from ada.latency.ttft_predictor import FixedTTFTPredictor

PLANNERS = ("learned", "even", "last")
PROMPTS = [[1, 17, -200, 60, 7], [1, -200, 5, 6, 7, 31], [1, 40, 41, 42], [1, 9, -200, 8, 9, 10, 11]]


def predictor_of(model: Any, slower: float) -> FixedTTFTPredictor:
    """A made-up device: 10 ms to the plan, then 1 ms for each unit, each ``slower`` times."""
    rest = [1e-6, 0.0, 0.0, slower * model.units.total, 0.0, 0.0, 0.0, 0.0]
    profile = Profile(
        DeviceFingerprint.of(model), "2026-01-01", [slower * 10.0, 0.0, 0.0, 0.0, 0.0], rest, [1.0] * 8, 1.0, 1.0, {}
    )
    return FixedTTFTPredictor(profile, model.units)


def requests_of(model: Any) -> list[dict[str, Any]]:
    """Forty calls whose budgets, predictors, planners and prompts differ."""
    chance = random.Random(0)
    requests = []
    for number in range(40):
        predictor = predictor_of(model, 1.0 + number % 5)
        by_time = TimeBudget((1.0 + number % 5) * (10.5 + chance.randint(0, model.units.tunable)))
        requests.append(
            {
                "prompt": PROMPTS[number % len(PROMPTS)],
                "latency_budget": chance.choice([None, 0.5, 0.7, 0.85, 1.0, by_time]),
                "planner": chance.choice(PLANNERS),
                "ttft_predictor": predictor,
            }
        )
    return requests


def answer(model: Any, pixels: torch.Tensor, request: dict[str, Any]) -> tuple[Any, ...]:
    """What one call returns, apart from the times that it took."""
    ids = torch.tensor([request["prompt"]])
    out = model.generate(
        ids,
        images=pixels[:1] if -200 in request["prompt"] else None,
        max_new_tokens=5,
        do_sample=False,
        return_dict_in_generate=True,
        **{key: value for key, value in request.items() if key != "prompt"},
    )
    report = out.report
    return out.sequences.tolist(), out.execution_plan, report.granted, report.ttft_p95_ms, report.prefill_flops


def test_generate_in_ten_threads_gives_each_what_it_gets_alone(model: Any, pixels: torch.Tensor) -> None:
    requests = requests_of(model)
    before = {name: value for name, value in vars(model).items() if not name.startswith("_")}
    alone = [answer(model, pixels, request) for request in requests]
    assert len({plan for _, plan, *_ in alone}) >= 6, "plans that could be mixed up"
    model.narrow_cache.clear()
    with ThreadPoolExecutor(10) as pool:
        joint = list(pool.map(lambda request: answer(model, pixels, request), requests))
    assert joint == alone
    after = {name: value for name, value in vars(model).items() if not name.startswith("_")}
    assert after == before, "a call keeps nothing on the model"
