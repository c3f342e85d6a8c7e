"""What became of a budget: requested, granted, met or not, what ran, and its operations by part."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ada.budget import LatencyBudget
from ada.cost.flops import Flops, decode_flops, prefill_flops
from ada.plan import ExecutionPlan
from ada.units import Units
from llava.errors import OptionError


def refuse_unreachable(units: Units, budget: LatencyBudget) -> None:
    """Raise ``OptionError`` where even the cheapest plan is over the budget, with the least reachable value."""
    least = units.fraction(0)
    if budget.fraction < least:
        raise OptionError(
            f"--latency-budget is {budget} and --strict-latency-budget is set, but this model always runs "
            f"{units.num_prefix_layers} of its {units.num_layers} layers; the least reachable budget is {least:g}"
        )


@dataclass(frozen=True)
class BudgetReport:
    """Facts about one answer. Fractions are of the decoder's units; operations are floating-point ones.

    ``requested`` is None where no budget was given. ``decode_flops`` are those of the first generated token's step.
    """

    requested: float | None
    granted: float
    budget_met: bool
    layers: tuple[int, int]  # run, of
    heads: tuple[int, int]  # run, of; key-value groups with grouped-query attention
    neuron_groups: tuple[int, int]  # run, of
    prompt_tokens: int
    prefill_flops: Flops
    decode_flops: Flops

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
        counts = f"layers {_of(self.layers)}, heads {_of(self.heads)}, neuron groups {_of(self.neuron_groups)}"
        gflops = sum(self.prefill_flops.values()) / 1e9
        return f"budget {asked}, granted {self.granted:.3g}{missed} | {counts} | prefill {gflops:.3g} GFLOPs"


def _of(pair: tuple[int, int]) -> str:
    return f"{pair[0]}/{pair[1]}"


def report(
    model: Any, budget: LatencyBudget | None, granted: int, plan: ExecutionPlan, prompt_tokens: int, num_images: int
) -> BudgetReport:
    """The report on one row: ``granted`` tunable units, ``plan`` as it ran, ``prompt_tokens`` as they entered the
    decoder (image and latency tokens included)."""
    config, units = model.config, model.units
    tower = model.get_vision_tower() if num_images else None
    switches = plan.num_switches * len(plan.layers)
    prefill = prefill_flops(
        config,
        units,
        plan,
        prompt_tokens,
        num_images=num_images,
        vision=None if tower is None else tower.config,
        projector=None if tower is None else model.get_model().mm_projector,
        image_tokens=0 if tower is None else num_images * tower.num_patches,
        has_scheduler=model.scheduler is not None,
    )
    fraction = units.fraction(granted)
    return BudgetReport(
        requested=None if budget is None else budget.fraction,
        granted=fraction,
        budget_met=budget is None or fraction <= budget.fraction,
        layers=(plan.layers_run, len(plan.layers)),
        heads=(plan.heads_run, switches),
        neuron_groups=(plan.neuron_groups_run, switches),
        prompt_tokens=prompt_tokens,
        prefill_flops=prefill,
        decode_flops=decode_flops(config, units, plan, prompt_tokens + 1),
    )


def count_images(images: Any) -> int:
    """Pictures in what ``generate`` takes as ``images``: (n, 3, H, W), a list of such, or one (3, H, W) each."""
    if images is None:
        return 0
    if not isinstance(images, list | tuple):
        return images.shape[0] if images.ndim == 4 else images.shape[0] * images.shape[1]
    return sum(1 if image.ndim == 3 else image.shape[0] for image in images)
