"""Says which layers of a plan run under a mask, and why."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ada.execution.layer_weights import can_cut, projections
from ada.memory.gigabytes import GB
from ada.memory.narrow_limit import FLAG
from ada.protocols import AdaptiveModel
from ada.scheduling.execution_plan import ExecutionPlan, LayerPlan, group_bounds


def masking(model: AdaptiveModel, masked: Collection[int], over_limit: Collection[int]) -> str | None:
    """Return what masked layers cost and why they are masked; None where there are none.

    over_limit: those that the limit of narrow layers' memory kept from being cut.
    """
    if not masked:
        return None
    reasons = dict.fromkeys(_reason(model, index, over_limit) for index in sorted(masked))
    cost = f"{len(masked)} layers run dense under a mask ({model.units.kind} saves no time there)"
    return f"{cost}: {'; '.join(reasons)}"


def _reason(model: AdaptiveModel, index: int, over_limit: Collection[int]) -> str:
    if not can_cut(model.model.layers[index]):
        return "quantised, adapted or offloaded weights cannot be cut"
    if index not in over_limit:
        return "rows with different plans share the batch"
    limit = model.narrow_cache.max_bytes or 0
    return f"{FLAG} {limit / GB:.3g} leaves no memory to cut them" + ("; raise it" if limit else "")


def masked_alone(model: AdaptiveModel, plan: ExecutionPlan) -> tuple[frozenset[int], frozenset[int]]:
    """Return the layers that are masked where the plan's question is asked alone, and those that the limit masks."""
    uncut, over_limit, taken = set(), set(), 0
    for index, kept in enumerate(plan.layers):
        if kept.is_empty or plan.is_full(index):
            continue
        layer = model.model.layers[index]
        if not can_cut(layer):
            uncut.add(index)
            continue
        needed = cut_bytes(layer, kept, plan.num_switches)
        if taken + needed > model.narrow_cache.limit_on(next(layer.parameters()).device):
            over_limit.add(index)
        else:
            taken += needed
    return frozenset(uncut | over_limit), frozenset(over_limit)


def cut_bytes(layer: Any, kept: LayerPlan, num_switches: int) -> int:
    """Return the bytes of a layer's weights that are cut; a block that runs dense is not."""
    weights, total = [projection.weight for projection in projections(layer)], 0
    for block, groups in ((weights[:4], kept.heads), (weights[4:], kept.neuron_groups)):
        if len(groups) == num_switches:
            continue
        for weight in block:  # the last one's columns are cut, the others' rows
            size = weight.shape[1 if weight is block[-1] else 0]
            bounds = group_bounds(size, num_switches)
            total += sum(bounds[group][1] - bounds[group][0] for group in groups) * weight.nbytes // size
    return total
