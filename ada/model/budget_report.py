"""Reports what became of a budget: requested, granted, met or not, what ran, its operations and milliseconds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ada.budget import Budget, LatencyBudget, TimeBudget
from ada.cost.flops import Flops, decode_flops, prefill_flops
from ada.execution.call_state import Execution
from ada.execution.narrow_layers import can_cut
from ada.image_tokens.selection import NO_IMAGE_TOKENS, RowTokens
from ada.latency.latency_model import NO_TIME_ELAPSED, Elapsed, Workload
from ada.latency.ttft_predictor import TTFTPredictor
from ada.protocols import AdaptiveModel
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
class RowCost:
    """What the cost of one row's answer depends on, apart from its plan.

    prompt_tokens: as they entered the decoder: image tokens, latency token and padding included; padding: of these,
    what a batch put before the row; num_images: that the vision tower saw, crops counted; scored: positions that got
    logits; image_tokens: how many there are and are read.
    """

    prompt_tokens: int
    padding: int = 0
    num_images: int = 0
    scored: int = 1
    image_tokens: RowTokens = NO_IMAGE_TOKENS

    def alone(self) -> RowCost:
        """Return the same row as if it were asked alone: without padding."""
        return replace(self, prompt_tokens=self.prompt_tokens - self.padding, padding=0)

    def workload(self, num_units: int) -> Workload:
        """Return what a time is predicted for, under ``num_units`` tunable units."""
        return Workload(self.prompt_tokens, num_units, self.num_images)

    def flops(self, model: AdaptiveModel, ran: ExecutionPlan) -> tuple[Flops, Flops]:
        """Return the operations, by part, of prefill and of the first decode step when ``ran`` runs."""
        tower = model.get_vision_tower() if self.num_images else None
        prefill = prefill_flops(
            model.config,
            model.units,
            ran,
            self.prompt_tokens,
            num_images=self.num_images * (1 if tower is None else tower.crops_per_image),
            vision=None if tower is None else tower.config,
            vision_layers=0 if tower is None else tower.layers_run,
            projector=None if tower is None else model.get_model().mm_projector,
            image_tokens=0 if tower is None else self.num_images * tower.num_image_tokens,
            has_scheduler=model.scheduler is not None,
            scored=self.scored,
        )
        return prefill, decode_flops(model.config, model.units, ran, self.prompt_tokens + 1)


@dataclass(frozen=True)
class BudgetReport:
    """One answer's budget and plan. Fractions are of the decoder's units; operations are floating-point ones.

    ``requested`` is None where no budget was given. ``decode_flops`` are those of the first generated token's step.
    Operations are those that really run: a layer that was masked rather than cut counts in full.
    """

    requested: float | None
    granted: float
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
    image_tokens: RowTokens = NO_IMAGE_TOKENS  # how many there are of each image, and how many are read
    requested_ms: float | None = None  # time to first token, where the budget was a time
    preprocess_ms: float = 0.0  # from the question to the call: tokenizing, reading images
    to_plan_ms: float | None = None  # from the call until the plan was made
    ttft_p50_ms: float | None = None  # median from the call to the first token, on a calibrated device
    ttft_p95_ms: float | None = None  # 95th percentile from the question to the first token, as the plan is made
    min_ttft_ms: float | None = None  # ttft_p95_ms of the cheapest plan

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
        if self.requested_ms is not None:
            requested = f"{self.requested_ms:g} ms"
            missed = "" if self.budget_met else f" (budget not met: the minimum is {self.min_ttft_ms:.4g} ms here)"
        counts = f"layers {_of(self.layers)}, heads {_of(self.heads)}, neurons {_of(self.neurons)}"
        gflops = sum(self.prefill_flops.values()) / 1e9
        parts = [f"budget {requested}, granted {self.granted:.3g}{missed}", counts, f"prefill {gflops:.3g} GFLOPs"]
        if self.image_tokens.late != self.image_tokens.all:
            parts.insert(1, self.image_tokens.summary())
        if self.ttft_p95_ms is not None:
            parts.append(f"predicted {self.ttft_p95_ms:.4g} ms")
        return " | ".join([*parts, self.masking] if self.masking else parts)


def _of(pair: tuple[int, int]) -> str:
    return f"{pair[0]}/{pair[1]}"


def describe(
    output: Any,
    model: AdaptiveModel,
    budgets: Sequence[Budget | None],
    execution: Execution,
    batch: EmbeddedBatch,
    predictor: TTFTPredictor | None,
    image_tokens: Sequence[RowTokens],
    elapsed: Elapsed = NO_TIME_ELAPSED,
    scored: int = 1,
) -> None:
    """Set ``execution_plan``, ``report`` and the predictor on ``output``; lists where the batch has several rows.

    image_tokens: of each row; scored: positions of each row that got logits; the others as ``report`` takes them.
    """
    rows, mask = len(budgets), batch.attention_mask
    plans = execution.finish(rows)
    padding = [0] * rows if mask is None else (mask == 0).sum(dim=1).tolist()
    costs = [
        RowCost(batch.width, own, images, scored, tokens)
        for own, images, tokens in zip(padding, batch.images_per_row, image_tokens, strict=True)
    ]
    reports = [report(model, budgets[row], execution, row, costs[row], predictor, elapsed) for row in range(rows)]
    output.ttft_predictor = predictor
    output.execution_plan, output.report = (plans, reports) if rows > 1 else (plans[0], reports[0])


def report(
    model: AdaptiveModel,
    budget: Budget | None,
    execution: Execution,
    row: int,
    cost: RowCost,
    predictor: TTFTPredictor | None = None,
    elapsed: Elapsed = NO_TIME_ELAPSED,
) -> BudgetReport:
    """Return the report on one row of what ``execution`` did.

    predictor: this device's calibration, None where there is none; elapsed: what of a time budget had passed.
    """
    units, width = model.units, model.config.intermediate_size
    plan, masked, granted = execution.finish(row + 1)[row], execution.masked_layers, int(execution.granted[row])
    switches = plan.num_switches * len(plan.layers)
    prefill, decode = cost.flops(model, plan.with_dense(masked))
    fraction = units.fraction(granted)
    share = budget.fraction if isinstance(budget, LatencyBudget) else None
    time_ms = budget.milliseconds if isinstance(budget, TimeBudget) else None
    times = _times(predictor, cost.workload(granted), elapsed)
    met = (share is None or fraction <= share) and (time_ms is None or (times["ttft_p95_ms"] or 0.0) <= time_ms)
    return BudgetReport(
        requested=share,
        granted=fraction,
        budget_met=met,
        layers=(plan.layers_run, len(plan.layers)),
        heads=(plan.heads_run, switches),
        neuron_groups=(plan.neuron_groups_run, switches),
        neurons=(plan.neurons_run(width), width * len(plan.layers)),
        masked_layers=len(masked),
        masking=_masking(model, masked),
        prompt_tokens=cost.prompt_tokens,
        prefill_flops=prefill,
        decode_flops=decode,
        padding=cost.padding,
        num_images=cost.num_images,
        image_tokens=cost.image_tokens,
        requested_ms=time_ms,
        preprocess_ms=elapsed.preprocess_ms,
        to_plan_ms=elapsed.to_plan_ms,
        **times,
    )


def asked_alone(
    model: AdaptiveModel, batched: BudgetReport, plan: ExecutionPlan, predictor: TTFTPredictor | None = None
) -> BudgetReport:
    """Return the report on a row of a batch as if its question had been asked alone.

    That is without padding, without layers that were masked only because other rows have other plans, and without the
    batch's times.
    """
    masked = frozenset(
        index
        for index, layer in enumerate(plan.layers)
        if not (layer.is_empty or plan.is_full(index) or can_cut(model.model.layers[index]))
    )
    tokens = batched.image_tokens
    cost = RowCost(batched.prompt_tokens, batched.padding, batched.num_images, image_tokens=tokens).alone()
    prefill, decode = cost.flops(model, plan.with_dense(masked))
    return replace(
        batched,
        masked_layers=len(masked),
        masking=_masking(model, masked),
        prompt_tokens=cost.prompt_tokens,
        prefill_flops=prefill,
        decode_flops=decode,
        padding=0,
        preprocess_ms=0.0,
        to_plan_ms=None,
        **_times(predictor, cost.workload(model.units.tunable_of(batched.granted)), NO_TIME_ELAPSED),
    )


def _times(predictor: TTFTPredictor | None, ran: Workload, elapsed: Elapsed) -> dict[str, Any]:
    """The report's milliseconds on a calibrated device; None where there is no calibration."""
    if predictor is None:
        return {"ttft_p50_ms": None, "ttft_p95_ms": None, "min_ttft_ms": None}
    return {
        "ttft_p50_ms": predictor.expected(ran).ttft_ms,
        "ttft_p95_ms": predictor.first_token_ms(ran, elapsed),
        "min_ttft_ms": predictor.first_token_ms(replace(ran, num_units=0), elapsed),
    }


def _masking(model: AdaptiveModel, masked: Iterable[int]) -> str | None:
    layers = list(masked)
    if not layers:
        return None
    reason = "quantised, adapted or offloaded weights cannot be cut"
    if all(can_cut(model.model.layers[index]) for index in layers):
        reason = "rows with different plans share the batch"
    return f"{len(layers)} layers run dense under a mask ({model.units.kind} saves no time there): {reason}"
