"""Decodes rows with different plans in one batch, after each has made its plan in its own prefill.

A decode step reads the weights once for all rows, so the batch runs every layer that any row needs, dense, and gates
take from each row what its own plan leaves out. Where all rows agree on a layer it is skipped or cut for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from ada.execution.call_state import Execution
from ada.execution.late_tokens import JoinedLateTokens
from ada.execution.layer_weights import can_cut
from ada.protocols import AdaptiveModel
from ada.scheduling.execution_plan import ExecutionPlan
from ada.scheduling.plan_maker import MadePlan
from llava.kv_cache import DecodingBatch, Heads


def mixed_batch(model: AdaptiveModel, outputs: Sequence[Any], lengths: Sequence[int]) -> DecodingBatch:
    """Return how generations of one row each decode as one batch, under their plans and with what they read.

    outputs: what ``generate`` returned for each; lengths: the columns of each row's cache. Image tokens that did not
    enter the decoder leave a gap between the number of these columns and a row's next position; columns that later
    layers do not read are masked there.
    """
    late = [output.late_tokens for output in outputs]
    joined = JoinedLateTokens(late, lengths) if any(row is not None for row in late) else None
    batch = mixed_plan_batch(model, [output.execution_plan for output in outputs], joined)
    return replace(batch, position_gaps=[output.position_gaps[0] for output in outputs])


def mixed_plan_batch(
    model: AdaptiveModel, plans: Sequence[ExecutionPlan], late_tokens: JoinedLateTokens | None = None
) -> DecodingBatch:
    """Return the execution of a batch whose rows have these plans, and the key-value heads that its cache holds.

    late_tokens: what later layers read of the rows, where that is less than all.
    """
    units = model.units
    prefix = units.num_prefix_layers
    gates = torch.stack([plan.gates()[prefix:] for plan in plans]).to(model.device)  # (rows, N, 2, A)
    granted = torch.full((len(plans),), units.tunable)  # not used: the plans are made
    execution = Execution(units, granted, MadePlan(gates), None, model.narrow_cache, late_tokens=late_tokens)
    return DecodingBatch([_heads(model, plans, index) for index in range(units.num_layers)], {"execution": execution})


def _heads(model: AdaptiveModel, plans: Sequence[ExecutionPlan], index: int) -> Heads:
    """What a layer's cache holds: one plan's heads where the layer is skipped or cut to it, as ``Execution`` does."""
    layer = plans[0].layers[index]
    if plans[0].is_full(index) or any(plan.layers[index] != layer for plan in plans):
        return None
    return layer.heads if layer.is_empty or can_cut(model.model.layers[index]) else None
