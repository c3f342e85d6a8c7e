"""Reads the plan to estimate from a file, or makes an even one for a budget."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from ada.budget import LatencyBudget, TimeBudget, read_budget
from ada.cost.sizes import Sizes
from ada.execution.call_state import plans_of
from ada.scheduling.execution_plan import ExecutionPlan, LayerPlan
from ada.scheduling.planners import planner_named
from ada.scheduling.units import Units
from llava.errors import OptionError

Heads = list[float]
"""The published code's plan: attention heads that run by layer; 0 or less for a layer that is skipped."""


def even_plan(units: Units, tunable: int) -> ExecutionPlan:
    """Return a plan of the prefix and ``tunable`` units, spread evenly."""
    return plans_of(planner_named("even")(units, torch.tensor([tunable]), None, None), units)[0]


def plan_of_budget(
    units: Units,
    budget: str,
    first_token_s: Callable[[ExecutionPlan], float],
    granted: Callable[[float], int] | None = None,
) -> ExecutionPlan:
    """Return an even plan of as many units as a share grants, or as fit in a time by ``first_token_s`` (seconds).

    granted: tunable units for a share of the full prefill, where image tokens are left out; by default of all of them.
    Raises OptionError for a time that the cheapest plan does not keep, with the minimum that can be reached.
    """
    read = read_budget(budget)
    if isinstance(read, LatencyBudget):
        return even_plan(units, (granted or units.granted)(read.fraction))
    return _within(units, read, first_token_s)


def _within(units: Units, budget: TimeBudget, first_token_s: Callable[[ExecutionPlan], float]) -> ExecutionPlan:
    if budget.milliseconds is None or budget.paces:
        raise OptionError(f"--latency-budget is {budget}; expected a time to first token alone, such as 850ms")
    for tunable in range(units.tunable, -1, -1):
        plan = even_plan(units, tunable)
        plan_ms = 1000 * first_token_s(plan)
        if plan_ms <= budget.milliseconds:
            return plan
    raise OptionError(
        f"--latency-budget is {budget}; the cheapest plan takes {plan_ms:.4g} ms to the first token here, the minimum "
        "that can be reached"
    )


def read_plan(file: Path, sizes: Sizes) -> ExecutionPlan | Heads:
    """Read an execution plan, alone or as ``plan`` of a report, or a list of heads by layer.

    Raises OptionError for a file that holds neither, or a plan that does not fit the model.
    """
    units = sizes.units
    try:
        fields = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise OptionError(f"--plan {file} cannot be read as JSON: {error}") from error
    if isinstance(fields, list):
        return _checked(fields, sizes, file)
    if not isinstance(fields, dict):
        raise OptionError(f"--plan {file} holds {fields!r}; expected a plan, or a list of heads by layer")
    plan = ExecutionPlan.from_json(fields.get("plan", fields))
    if (len(plan.layers), plan.num_switches) != (units.num_layers, units.num_switches):
        raise OptionError(
            f"--plan {file} has {len(plan.layers)} layers of {plan.num_switches} switches; the model has "
            f"{units.num_layers} of {units.num_switches}"
        )
    return plan


def _checked(heads: list[Any], sizes: Sizes, file: Path) -> Heads:
    layers, max_heads = sizes.units.num_layers, sizes.config.num_attention_heads
    numbers = [x for x in heads if isinstance(x, (int, float)) and not isinstance(x, bool) and x <= max_heads]
    if len(numbers) != len(heads) or len(heads) != layers or not any(x > 0 for x in numbers):
        raise OptionError(
            f"--plan {file} is not a list of {layers} numbers up to {max_heads}, the heads that run by layer (0 or -1 "
            "for a layer that is skipped), of which at least one runs"
        )
    return [max(0, x) for x in numbers]


def plan_of_heads(heads: Sequence[float], sizes: Sizes) -> ExecutionPlan:
    """Return a plan with as many heads in each layer, the first ones, and the same share of neuron groups.

    Raises OptionError for numbers of heads that are not a multiple of this model's switch.
    """
    switches = sizes.units.num_switches
    each = sizes.config.num_attention_heads // switches
    if any(kept % each for kept in heads):
        raise OptionError(f"the plan's heads are {list(heads)}; this model switches {each} at a time")
    kept = [tuple(range(int(x) // each)) for x in heads]
    return ExecutionPlan(tuple(LayerPlan(on, on) for on in kept), switches)


def heads_of(plan: ExecutionPlan, sizes: Sizes) -> Heads:
    """Return the heads that run by layer, as the published code takes a plan.

    Raises OptionError where a layer keeps different numbers of heads and neuron groups: there one number scales both.
    """
    if any(len(layer.heads) != len(layer.neuron_groups) for layer in plan.layers):
        raise OptionError("--as-published needs as many neuron groups as heads in each layer of the plan")
    each = sizes.config.num_attention_heads // plan.num_switches
    return [len(layer.heads) * each for layer in plan.layers]
