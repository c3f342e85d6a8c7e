"""What became of a budget: requested, granted, met or not, what ran, and its operations by part."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from ada.budget import LatencyBudget, TimeBudget
from ada.cost.flops import Flops, decode_flops, decoder_flops, prefill_flops
from ada.execution.call_state import Execution
from ada.execution.narrow_layers import can_cut
from ada.latency.latency_model import NO_TIME_ELAPSED, Elapsed, Workload
from ada.scheduling.execution_plan import ExecutionPlan
from llava.constants import IMAGE_TOKEN_INDEX
from llava.model.multimodal.merge_inputs import features_by_row


@dataclass(frozen=True)
class BudgetReport:
    """Facts about one answer. Fractions are of the decoder's units; operations are floating-point ones.

    ``requested`` is None where no budget was given. ``decode_flops`` are those of the first generated token's step.
    Operations are those that really run: a layer that was masked rather than cut counts whole.
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
    prompt_tokens: int  # as they entered the decoder: image and latency tokens and padding included
    prefill_flops: Flops
    decode_flops: Flops
    padding: int = 0  # of the prompt_tokens, those that a batch put in front
    pictures: int = 0  # that the vision tower saw, crops counted
    requested_ms: float | None = None  # to the first token, where the budget was a time
    before_ms: float = 0.0  # from the question to the call: reading words and pictures
    plan_ms: float | None = None  # from the call until the plan was made
    expected_ms: float | None = None  # from the call to the first token, on a calibrated device, in the middle
    predicted_ms: float | None = None  # from the question to the first token, p95, as the plan is made
    least_ms: float | None = None  # predicted of the cheapest plan

    def to_json(self) -> dict[str, Any]:
        """JSON-ready, with the sums in GFLOPs beside the parts."""
        return {
            **asdict(self),
            "prefill_gflops": sum(self.prefill_flops.values()) / 1e9,
            "decode_gflops_per_token": sum(self.decode_flops.values()) / 1e9,
        }

    def summary(self) -> str:
        """One line for people."""
        asked = "none" if self.requested is None else f"{self.requested:g}"
        missed = "" if self.budget_met else " (budget not met: the least this model can do)"
        if self.requested_ms is not None:
            asked = f"{self.requested_ms:g} ms"
            missed = "" if self.budget_met else f" (budget not met: {self.least_ms:.4g} ms is the least here)"
        counts = f"layers {_of(self.layers)}, heads {_of(self.heads)}, neurons {_of(self.neurons)}"
        gflops = sum(self.prefill_flops.values()) / 1e9
        parts = [f"budget {asked}, granted {self.granted:.3g}{missed}", counts, f"prefill {gflops:.3g} GFLOPs"]
        if self.predicted_ms is not None:
            parts.append(f"predicted {self.predicted_ms:.4g} ms")
        return " | ".join([*parts, self.masking] if self.masking else parts)


def _of(pair: tuple[int, int]) -> str:
    return f"{pair[0]}/{pair[1]}"


def report(
    model: Any,
    budget: LatencyBudget | TimeBudget | None,
    execution: Execution,
    row: int,
    prompt_tokens: int,
    pictures: int,
    scored: int = 1,
    padding: int = 0,
) -> BudgetReport:
    """The report on one row: what its ``execution`` did, ``prompt_tokens`` as they entered the decoder, ``padding`` of
    these in front, ``pictures`` that the vision tower saw, ``scored`` positions that got logits."""
    config, units = model.config, model.units
    plan, masked = execution.finish(row + 1)[row], execution.masked_layers
    granted, clock = int(execution.granted[row]), execution.clock
    gone = NO_TIME_ELAPSED if clock is None else clock.gone
    ran = plan.with_whole(masked)
    tower = model.get_vision_tower() if pictures else None
    switches = plan.num_switches * len(plan.layers)
    prefill = prefill_flops(
        config,
        units,
        ran,
        prompt_tokens,
        num_images=pictures,
        vision=None if tower is None else tower.config,
        vision_layers=0 if tower is None else tower.layers_run,
        projector=None if tower is None else model.get_model().mm_projector,
        image_tokens=0 if tower is None else pictures * _features(tower),
        has_scheduler=model.scheduler is not None,
        scored=scored,
    )
    fraction, width = units.fraction(granted), config.intermediate_size
    share = budget.fraction if isinstance(budget, LatencyBudget) else None
    time = budget.milliseconds if isinstance(budget, TimeBudget) else None
    times = _times(model, Workload(prompt_tokens, granted, pictures), gone)
    met = (share is None or fraction <= share) and (time is None or (times["predicted_ms"] or 0.0) <= time)
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
        prompt_tokens=prompt_tokens,
        prefill_flops=prefill,
        decode_flops=decode_flops(config, units, ran, prompt_tokens + 1),
        padding=padding,
        pictures=pictures,
        requested_ms=time,
        before_ms=gone.preprocess_ms,
        plan_ms=gone.to_plan_ms,
        **times,
    )


def _times(model: Any, point: Workload, gone: Elapsed) -> dict[str, Any]:
    """The report's milliseconds of a calibrated device; None of another."""
    latency = model.latency
    return {
        "expected_ms": None if latency is None else latency.expected(point).ttft_ms,
        "predicted_ms": None if latency is None else latency.first_token_ms(point, gone),
        "least_ms": None if latency is None else latency.first_token_ms(replace(point, num_units=0), gone),
    }


def asked_alone(model: Any, report: BudgetReport, plan: ExecutionPlan) -> BudgetReport:
    """The report on a row of a batch as it is when its question is asked alone: without padding, without layers that
    were masked whole only because other rows have other plans, and without the batch's times."""
    config, units, tokens = model.config, model.units, report.prompt_tokens - report.padding
    masked = frozenset(
        index
        for index, layer in enumerate(plan.layers)
        if not (layer.is_empty or plan.is_full(index) or can_cut(model.model.layers[index]))
    )
    ran = plan.with_whole(masked)
    return replace(
        report,
        masked_layers=len(masked),
        masking=_masking(model, masked),
        prompt_tokens=tokens,
        prefill_flops={**report.prefill_flops, **decoder_flops(config, units, ran, tokens, tokens)},
        decode_flops=decode_flops(config, units, ran, tokens + 1),
        padding=0,
        before_ms=0.0,
        plan_ms=None,
        **_times(model, Workload(tokens, units.tunable_of(report.granted), report.pictures), NO_TIME_ELAPSED),
    )


def _masking(model: Any, masked: frozenset[int]) -> str | None:
    if not masked:
        return None
    reason = "quantised, adapted or offloaded weights cannot be cut"
    if all(can_cut(model.model.layers[index]) for index in masked):
        reason = "rows with different plans share the batch"
    return f"{model.units.kind} saves no time in {len(masked)} layers, which are masked whole: {reason}"


def _features(tower: Any) -> int:
    """Positions that one picture sends through the projector."""
    return tower.num_patches + (tower.select_feature == "cls_patch")


def pictures_of_rows(input_ids: torch.Tensor, mask: torch.Tensor | None, images: Any) -> list[int]:
    """How many pictures, or crops of them, the vision tower sees for each row of ``input_ids`` (B, t).

    images: what ``generate`` takes: (n, 3, S, S), or per picture one (3, S, S) or its crops (c, 3, S, S).
    """
    if images is None:
        return [0] * len(input_ids)
    crops: list[Any] = [len(image) if image.dim() == 4 else 1 for image in images]
    tags = input_ids == IMAGE_TOKEN_INDEX
    if mask is not None:
        tags = tags & mask.bool()
    rows: list[Any] = features_by_row(tags.sum(dim=1).tolist(), crops)
    return [sum(own) for own in rows]
