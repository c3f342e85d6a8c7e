"""The promise that a budget in time makes a request in the queue, and what it takes of the engine at the minimum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ada.budget import TimeBudget
from ada.frontier.reach import Amounts, amounts_of
from ada.image_tokens.amount import ImageTokens
from ada.latency.latency_model import Workload
from ada.latency.ttft_predictor import TTFTPredictor
from ada.protocols import AdaptiveModel
from llava.serve.engine.promise import Pace, Promise


def time_promise(
    model: AdaptiveModel,
    predictor: TTFTPredictor,
    fields: Mapping[str, Any],
    prompt_tokens: int,
    max_new_tokens: int,
) -> Promise | None:
    """Return the promise of a request; None where its budget is a share.

    fields: as ``BudgetPolicy.check`` has parsed them, and ``num_crops``; prompt_tokens: positions of the prompt with
    all image tokens.
    """
    budget = fields.get("latency_budget")
    if not isinstance(budget, TimeBudget):
        return None
    ttft_s, total_s = (None if ms is None else ms / 1000 for ms in (budget.milliseconds, budget.total_ms))
    first_s, work_s = minimum_s(model, predictor, fields, prompt_tokens, max_new_tokens)
    token_ms, pace = budget.token_ms, None
    if token_ms is not None:
        tokens = prompt_tokens + (model.scheduler is not None)
        later_tokens = predictor.planned_tokens(max_new_tokens) - 1
        cheapest = Workload(tokens, _min_units(model, fields), fields["num_crops"])
        pace = Pace(token_ms / 1000, lambda rows: token_s(predictor, cheapest, later_tokens, rows))
    return Promise.of(first_s, work_s, ttft_s, total_s, pace)


def token_s(predictor: TTFTPredictor, cheapest: Workload, later_tokens: int, rows: int) -> float:
    """Return the predicted p95 of an answer's mean time for a later token, in seconds, in a batch of ``rows``.

    Alone it is that of the cheapest plan; in a batch the others are taken to run in full and to have as long contexts.
    """
    units = cheapest.num_units if rows == 1 else predictor.units.tunable
    context = rows * (cheapest.num_tokens + later_tokens // 2)
    step = replace(cheapest, num_tokens=context, num_units=units, rows=rows)
    return predictor.slow_token_ms(step, later_tokens) / 1000


def _min_units(model: AdaptiveModel, fields: Mapping[str, Any]) -> int:
    return 0 if model.scheduler is not None or fields.get("planner") else model.units.tunable


def minimum_s(
    model: AdaptiveModel, predictor: TTFTPredictor, fields: Mapping[str, Any], prompt_tokens: int, max_new_tokens: int
) -> tuple[float, float]:
    """Return the predicted p95, in seconds, until the first token and the end of an answer under its cheapest plan.

    The answer is taken to be as long as most of those before it.
    """
    later_tokens = predictor.planned_tokens(max_new_tokens) - 1
    both = TimeBudget(milliseconds=1.0, total_ms=1.0, later_tokens=later_tokens)  # the clauses to predict
    tokens = prompt_tokens + (model.scheduler is not None)
    amounts, crops = _amounts(model, fields), fields["num_crops"]
    filled = tokens // amounts.image_tokens if crops else 0  # some crops have fewer tokens: without those of padding
    workload = Workload(tokens, _min_units(model, fields), min(crops, filled))
    chosen = [replace(one, num_images=crops) for one in amounts.workloads(workload)]
    times = [predictor.minimum(both, one) for one in chosen]
    cheapest = min(times, key=lambda ms: ms["total"])
    return cheapest["ttft"] / 1000, cheapest["total"] / 1000


def _amounts(model: AdaptiveModel, fields: Mapping[str, Any]) -> Amounts:
    """The amounts of image tokens that a request may get."""
    given: ImageTokens | None = fields.get("image_tokens")
    trained = getattr(model.config, "image_token_dropout", None) is not None
    every = amounts_of(model)
    if given is None and not trained:
        given = ImageTokens.parse("all")
    return every if given is None or given.auto else Amounts(every.image_tokens, [given])
