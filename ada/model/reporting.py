"""Makes the reports on a call's answers, and on a row of a batch as if it were alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ada.budget import Budget, LatencyBudget, TimeBudget
from ada.execution.call_state import Execution
from ada.latency.grant import workload_of
from ada.latency.latency_model import NO_TIME_ELAPSED, Elapsed, Workload
from ada.latency.ttft_predictor import TTFTPredictor
from ada.model.budget_report import BudgetReport
from ada.model.clause_report import ClauseReport, clauses_of
from ada.model.masking import masked_alone, masking
from ada.model.reading import Reading
from ada.model.row_cost import RowCost, costs_of
from ada.protocols import AdaptiveModel
from ada.reuse.call_reuse import CallReuse
from ada.scheduling.execution_plan import ExecutionPlan
from llava.model.multimodal.embedded_batch import EmbeddedBatch


def describe(
    output: Any,
    model: AdaptiveModel,
    budgets: Sequence[Budget | None],
    execution: Execution,
    batch: EmbeddedBatch,
    predictor: TTFTPredictor | None,
    reading: Reading,
    elapsed: Elapsed = NO_TIME_ELAPSED,
    by_transformers: str | None = None,
    reuse: CallReuse | None = None,
    scored: int = 1,
) -> None:
    """Set ``execution_plan``, ``report`` and the predictor on ``output``; lists where the batch has several rows.

    batch: what was read of the prompts, latency tokens included; reading: how much of them that is; by_transformers:
    why transformers' loop decoded, None where the engine did; reuse: what was known; scored: positions of each row that
    got logits; the others as ``report`` takes them.
    """
    rows = len(budgets)
    plans = execution.finish(rows)
    masks_columns = by_transformers is not None
    costs = [replace(cost, masks_columns=masks_columns) for cost in costs_of(batch, reading, scored)]
    if reuse is not None:
        length = 0 if masks_columns else reuse.length  # transformers' loop reads the prompt from its beginning
        known = length, length if reuse.same_plan else 0
        crops = reuse.known_crops_of(batch.images_per_row)
        costs = [replace(cost, known_tokens=known, known_crops=count) for cost, count in zip(costs, crops, strict=True)]
    reports = [
        report(model, budgets[row], execution, row, costs[row], reading, predictor, elapsed) for row in range(rows)
    ]
    reports = [replace(own, by_transformers=by_transformers) for own in reports]
    output.ttft_predictor = predictor
    output.execution_plan, output.report = (plans, reports) if rows > 1 else (plans[0], reports[0])


def report(
    model: AdaptiveModel,
    budget: Budget | None,
    execution: Execution,
    row: int,
    cost: RowCost,
    reading: Reading,
    predictor: TTFTPredictor | None = None,
    elapsed: Elapsed = NO_TIME_ELAPSED,
) -> BudgetReport:
    """Return the report on one row of what ``execution`` did.

    cost, reading: of what was read. predictor: this device's calibration, None where there is none; elapsed: what of a
    time budget had passed.
    """
    units, width = model.units, model.config.intermediate_size
    plan, masked, granted = execution.finish(row + 1)[row], execution.masked_layers, int(execution.granted[row])
    tokens = reading.prompts[row]
    switches = plan.num_switches * len(plan.layers)
    prefill, decode = cost.flops(model, plan.with_dense(masked))
    share = budget.fraction if isinstance(budget, LatencyBudget) else None
    ran = workload_of(reading.share, tokens, reading.num_images[row], granted)
    times = _times(predictor, ran, elapsed, reading.share.min_units)
    clauses: tuple[ClauseReport, ...] = ()
    if isinstance(budget, TimeBudget) and predictor is not None:
        cheapest = replace(ran, num_units=reading.share.min_units)
        clauses = clauses_of(
            budget, predictor.times(budget, ran, elapsed), predictor.minimum(budget, cheapest, elapsed)
        )
    met = (share is None or reading.share.is_within(share, tokens, granted)) and all(
        clause.predicted_ms <= clause.requested_ms for clause in clauses
    )
    return BudgetReport(
        requested=share,
        granted=units.fraction(granted),
        prefill_share=reading.share.of_prefill(tokens, granted),
        unmerged_share=_unmerged_share(reading, row, granted),
        budget_met=met,
        layers=(plan.layers_run, len(plan.layers)),
        heads=(plan.heads_run, switches),
        neuron_groups=(plan.neuron_groups_run, switches),
        neurons=(plan.neurons_run(width), width * len(plan.layers)),
        masked_layers=len(masked),
        masking=masking(model, masked, execution.over_limit),
        prompt_tokens=cost.prompt_tokens,
        prefill_flops=prefill,
        decode_flops=decode,
        padding=cost.padding,
        num_images=cost.num_images,
        image_tokens=cost.image_tokens,
        late_selector=cost.late_selector,
        requested_ms=budget.milliseconds if isinstance(budget, TimeBudget) else None,
        clauses=clauses,
        known_tokens=cost.known_tokens,
        known_crops=cost.known_crops,
        preprocess_ms=elapsed.preprocess_ms,
        to_plan_ms=elapsed.to_plan_ms,
        **times,
    )


def cost_of(described: BudgetReport) -> RowCost:
    """Return what the cost of a reported answer depends on."""
    return RowCost(
        described.prompt_tokens,
        described.padding,
        described.num_images,
        image_tokens=described.image_tokens,
        late_selector=described.late_selector,
        masks_columns=described.by_transformers is not None,
    )


def asked_alone(
    model: AdaptiveModel, batched: BudgetReport, plan: ExecutionPlan, predictor: TTFTPredictor | None = None
) -> BudgetReport:
    """Return the report on a row of a batch as if its question had been asked alone.

    That is without padding, without layers that were masked only because other rows have other plans, and without the
    batch's times.
    """
    masked, over_limit = masked_alone(model, plan)
    cost = cost_of(batched).alone()
    prefill, decode = cost.flops(model, plan.with_dense(masked))
    return replace(
        batched,
        masked_layers=len(masked),
        masking=masking(model, masked, over_limit),
        prompt_tokens=cost.prompt_tokens,
        prefill_flops=prefill,
        decode_flops=decode,
        padding=0,
        late_selector=cost.late_selector,
        preprocess_ms=0.0,
        to_plan_ms=None,
        **_times(predictor, cost.workload(model, model.units.tunable_of(batched.granted)), NO_TIME_ELAPSED),
    )


def _unmerged_share(reading: Reading, row: int, granted: int) -> float | None:
    """The share of a prefill on all patches; None for a checkpoint whose image tokens are not merged."""
    own, tokens = reading.rows[row], reading.prompts[row]
    if own.merged_from is None:
        return None
    full = tokens.full - sum(own.all) + own.merged_from
    return reading.share.of_prefill(replace(tokens, full=full), granted)


def _times(predictor: TTFTPredictor | None, ran: Workload, elapsed: Elapsed, min_units: int = 0) -> dict[str, Any]:
    """The report's milliseconds on a calibrated device; None where there is no calibration."""
    if predictor is None:
        return {"ttft_p50_ms": None, "ttft_p95_ms": None, "min_ttft_ms": None}
    return {
        "ttft_p50_ms": predictor.expected(ran).ttft_ms,
        "ttft_p95_ms": predictor.first_token_ms(ran, elapsed),
        "min_ttft_ms": predictor.first_token_ms(replace(ran, num_units=min_units), elapsed),
    }
