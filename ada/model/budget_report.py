"""Reports what became of a budget: requested, granted, met or not, what ran, its operations and milliseconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ada.budget import Budget, LatencyBudget, TimeBudget
from ada.cost.flops import Flops
from ada.engine.support import ASKED_FOR
from ada.execution.call_state import Execution
from ada.image_tokens.selection import NO_IMAGE_TOKENS, RowTokens
from ada.latency.grant import workload_of
from ada.latency.latency_model import NO_TIME_ELAPSED, Elapsed, Workload
from ada.latency.ttft_predictor import TTFTPredictor
from ada.model.clause_report import ClauseReport, clauses_of
from ada.model.masking import masked_alone, masking
from ada.model.reading import Reading
from ada.model.row_cost import RowCost, costs_of
from ada.protocols import AdaptiveModel
from ada.reuse.call_reuse import CallReuse
from ada.scheduling.execution_plan import ExecutionPlan
from llava.model.multimodal.embedded_batch import EmbeddedBatch

# Old names of fields, which replies and records carry for one more release.
ALIASES = {
    "pictures": "num_images",
    "before_ms": "preprocess_ms",
    "plan_ms": "to_plan_ms",
    "expected_ms": "ttft_p50_ms",
    "predicted_ms": "ttft_p95_ms",
    "least_ms": "min_ttft_ms",
}


@dataclass(frozen=True)
class BudgetReport:
    """One answer's budget and plan. Fractions are of the decoder's units; operations are floating-point ones.

    ``requested`` is None where no budget was given. ``decode_flops`` are those of the first generated token's step.
    Operations are those that really run: a layer that was masked rather than cut counts in full.
    """

    requested: float | None
    granted: float
    prefill_share: float  # of the language model's prefill at all image tokens and layers: what a budget is a share of
    budget_met: bool
    layers: tuple[int, int]  # run, of
    heads: tuple[int, int]  # run, of; key-value groups with grouped-query attention
    neuron_groups: tuple[int, int]  # run, of
    neurons: tuple[int, int]  # run, of
    masked_layers: int
    masking: str | None  # what it costs and why, where any layer was masked
    prompt_tokens: int  # as they entered the decoder: image tokens, latency token and padding included
    prefill_flops: Flops
    decode_flops: Flops
    padding: int = 0  # of the prompt_tokens, those that a batch put before the row
    num_images: int = 0  # that the vision tower saw, crops counted
    unmerged_share: float | None = None  # where a checkpoint merges tokens: the share of a prefill on all patches
    image_tokens: RowTokens = NO_IMAGE_TOKENS  # how many there are of each image, and how many are read
    late_selector: str | None = None  # what chose the image tokens of later layers
    requested_ms: float | None = None  # time to first token, where the budget was a time
    preprocess_ms: float = 0.0  # from the question to the call: tokenizing, reading images
    to_plan_ms: float | None = None  # from the call until the plan was made
    ttft_p50_ms: float | None = None  # median from the call to the first token, on a calibrated device
    ttft_p95_ms: float | None = None  # 95th percentile from the question to the first token, as the plan is made
    min_ttft_ms: float | None = None  # ttft_p95_ms of the cheapest plan
    by_transformers: str | None = None  # why transformers' loop decoded; None where the engine did
    clauses: tuple[ClauseReport, ...] = ()  # of a budget in time
    known_tokens: tuple[int, int] = (0, 0)  # first positions on which the prefix layers, and the others, did not run
    known_crops: int = 0  # images, or crops of them, whose features were known

    def to_json(self) -> dict[str, Any]:
        """Return JSON-ready fields, the sums in GFLOPs, and the old names of fields (``ALIASES``)."""
        fields = asdict(self)
        return {
            **fields,
            **{old: fields[name] for old, name in ALIASES.items()},
            "image_tokens": self.image_tokens.to_json(),
            "prefill_gflops": sum(self.prefill_flops.values()) / 1e9,
            "decode_gflops_per_token": sum(self.decode_flops.values()) / 1e9,
        }

    def summary(self) -> str:
        """Return one line for people."""
        requested = "none" if self.requested is None else f"{self.requested:g}"
        missed = "" if self.budget_met else " (below this model's minimum; ran the cheapest plan)"
        if self.clauses:
            requested = "in time" if self.requested_ms is None else f"{self.requested_ms:g} ms"
            out_of_reach = [clause for clause in self.clauses if not clause.reachable]
            minimum = ", ".join(f"{clause.min_ms:.4g} ms" + _named(clause) for clause in out_of_reach)
            missed = f" (budget not met: the minimum is {minimum} here)" if minimum else ""
        counts = f"layers {_of(self.layers)}, heads {_of(self.heads)}, neurons {_of(self.neurons)}"
        gflops = sum(self.prefill_flops.values()) / 1e9
        parts = [f"budget {requested}, granted {self.granted:.3g}{missed}", counts, f"prefill {gflops:.3g} GFLOPs"]
        if self.image_tokens.late != self.image_tokens.all or self.unmerged_share is not None:
            share = self.prefill_share if self.unmerged_share is None else self.unmerged_share
            parts.insert(1, f"{self.image_tokens.summary()}, share {share:.3g}")
        if len(self.clauses) > 1 or self.requested_ms is None:
            parts += [clause.summary() for clause in self.clauses]
        if self.ttft_p95_ms is not None and not (self.clauses and self.requested_ms is None):
            parts.append(f"predicted {self.ttft_p95_ms:.4g} ms")
        if self.by_transformers not in (None, ASKED_FOR):
            parts.append(f"decoded by transformers: {self.by_transformers}")
        return " | ".join([*parts, self.masking] if self.masking else parts)


def _named(clause: ClauseReport) -> str:
    return "" if clause.name == "ttft" else f" ({clause.name})"


def _of(pair: tuple[int, int]) -> str:
    return f"{pair[0]}/{pair[1]}"


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
    if reuse is not None and by_transformers is None:
        known = reuse.length, reuse.length if reuse.same_plan else 0
        costs = [replace(cost, known_tokens=known, known_crops=reuse.known_crops) for cost in costs]
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
    ran = workload_of(reading.share, tokens, cost.num_images, granted)
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
