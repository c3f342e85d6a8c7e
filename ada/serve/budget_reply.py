"""What the last chunk of an answer reports of its latency budget: requested, allowed, granted, run, measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ada.budget import Budget, LatencyBudget, TimeBudget
from ada.model.row_cost import RowCost
from ada.protocols import AdaptiveModel
from ada.scheduling.execution_plan import ExecutionPlan
from llava.serve.engine.request import Finished

METADATA = (
    "granted",
    "prefill_share",
    "layers",
    "heads",
    "neuron_groups",
    "masked_layers",
    "prefill_gflops",
    "decode_gflops_per_token",
    "quality",
    "summary",
    "plan",
    "known_tokens",
    "known_crops",
)


def budget_report(model: AdaptiveModel, fields: Mapping[str, Any], finished: Finished) -> dict[str, Any]:
    """Return the report of an answer that a plan was made for, JSON-ready, times from when the request came.

    fields: the request's, as ``BudgetPolicy.check`` has parsed them.
    """
    metadata, options = finished.answer.metadata, finished.options
    requested: Budget | None = fields.get("latency_budget")
    share = requested.fraction if isinstance(requested, LatencyBudget) else None
    allowed = options.get("latency_budget")
    clauses = _from_arrival(metadata["clauses"], requested, options.get("waited_ms", 0.0))
    return {
        "requested": share,
        "requested_ms": requested.milliseconds if isinstance(requested, TimeBudget) else None,
        "policy": fields.get("latency_budget_policy", "adaptive"),
        "allowed": allowed.fraction if isinstance(allowed, LatencyBudget) else allowed and str(allowed),
        "load_multiplier": options.get("load_multiplier", 1.0),
        "met": metadata["budget_met"] or _met_as_requested(requested, metadata, clauses),
        "ttft_p95_ms": metadata.get("ttft_p95_ms"),  # None where the device is not calibrated
        "predicted_ms": metadata.get("ttft_p95_ms"),  # its old name
        "measured_ms": round(finished.answer.timing["time_to_first_token_ms"], 3),  # without the queue
        **{name: metadata[name] for name in METADATA},
        "clauses": clauses,
        **full_model_gflops(model, metadata),
    }


def _met_as_requested(
    requested: Budget | None, metadata: Mapping[str, Any], clauses: Sequence[Mapping[str, Any]]
) -> bool:
    """Whether what was requested is met where load has lowered it further than the cheapest plan goes."""
    if isinstance(requested, TimeBudget):
        return bool(clauses) and all(clause["predicted_ms"] <= clause["requested_ms"] for clause in clauses)
    return bool(metadata["granted"] <= (1 if requested is None else requested.fraction))


def _from_arrival(
    clauses: Sequence[Mapping[str, Any]], requested: Budget | None, waited_ms: float
) -> list[dict[str, Any]]:
    """Return the reports of the clauses that were requested, their times from when the request came."""
    if not isinstance(requested, TimeBudget):
        return []
    asked, found = dict(requested.clauses()), []
    for clause in clauses:
        if (name := clause["name"]) not in asked:  # the load's
            continue
        waited = 0.0 if name == "tpot" else waited_ms
        times = {key: ms + waited for key, ms in clause.items() if key.endswith("_ms") and ms is not None}
        found.append({**clause, **times, "requested_ms": asked[name]})
    return found


def full_model_gflops(model: AdaptiveModel, metadata: Mapping[str, Any]) -> dict[str, float]:
    """Return what the same prompt costs when all of the decoder runs, on all image tokens, in GFLOPs."""
    units, image_tokens = model.units, metadata["image_tokens"]
    prompt_tokens = metadata["prompt_tokens"] + image_tokens["all"] - image_tokens["kept"]
    cost = RowCost(prompt_tokens, num_images=metadata["num_images"])
    prefill, decode = cost.flops(model, ExecutionPlan.full(units.num_layers, units.num_switches))
    return {
        "whole_prefill_gflops": sum(prefill.values()) / 1e9,
        "whole_decode_gflops_per_token": sum(decode.values()) / 1e9,
    }
