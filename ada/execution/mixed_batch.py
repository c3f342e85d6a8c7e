"""Decodes rows with different plans in one batch, after each has made its plan in its own prefill.

A decode step reads the weights once for all rows, so the batch runs every layer that any row needs, dense, and gates
take from each row what its own plan leaves out. Where all rows agree on a layer it is skipped or cut for all of them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import torch

from ada.execution.call_state import Execution
from ada.execution.late_tokens import JoinedLateTokens
from ada.protocols import AdaptiveModel
from ada.scheduling.execution_plan import ExecutionPlan
from ada.scheduling.plan_maker import MadePlan
from llava.kv_cache import DecodingBatch, Heads


def mixed_batch(model: AdaptiveModel, outputs: Sequence[Any], lengths: Sequence[int]) -> DecodingBatch:
    """Return how generations of one row each decode as one batch, under their plans and with what they read.

    outputs: what ``generate`` returned for each; lengths: the columns of each row's cache. Image tokens that did not
    enter the decoder leave a gap between the number of these columns and a row's next position; columns that later
    layers do not read are masked there. A layer that a row's prefill has masked is masked for all. Heads of a row alone
    that still has its cache are those that its prefill has left there.
    """
    late = [output.late_tokens for output in outputs]
    joined = JoinedLateTokens(late, lengths) if any(row is not None for row in late) else None
    masked = {layer for output in outputs for layer in output.masked_layers}
    batch = mixed_plan_batch(model, [output.execution_plan for output in outputs], joined, masked)
    batch = replace(batch, position_gaps=[output.position_gaps[0] for output in outputs])
    if len(outputs) == 1 and outputs[0].past_key_values is not None:
        return replace(batch, heads=_heads_left(outputs[0].execution_plan, masked))
    return batch


def mixed_plan_batch(
    model: AdaptiveModel,
    plans: Sequence[ExecutionPlan],
    late_tokens: JoinedLateTokens | None = None,
    masked: Collection[int] = (),
) -> DecodingBatch:
    """Return the execution of a batch whose rows have these plans, and the key-value heads that its cache holds.

    late_tokens: what later layers read of the rows, where that is less than all; masked: layers to mask although they
    could be cut. What each layer does is decided here: by the time of a step there may be no memory to cut it.
    """
    units = model.units
    prefix = units.num_prefix_layers
    gates = torch.stack([plan.gates()[prefix:] for plan in plans]).to(model.device)  # (rows, N, 2, A)
    granted = torch.full((len(plans),), units.tunable)  # not used: the plans are made
    execution = Execution(
        units, granted, MadePlan(gates), None, model.narrow_cache, late_tokens=late_tokens, never_cut=masked
    )
    execution.make_plan(None, gates)
    heads: list[Heads] = [None] * prefix
    for plan, layer in zip(plans[0].layers[prefix:], model.model.layers[prefix:], strict=True):
        action = execution.action_of(layer)
        heads.append(plan.heads if action.skip or action.narrow is not None else None)
    return DecodingBatch(heads, {"execution": execution})


def _heads_left(plan: ExecutionPlan, masked: Collection[int]) -> list[Heads]:
    """The heads that a prefill has left in each layer's cache; None for all, as where the layer was masked."""
    return [None if plan.is_full(index) or index in masked else layer.heads for index, layer in enumerate(plan.layers)]
