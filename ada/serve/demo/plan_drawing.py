"""Draws an execution plan in the page's colours: what runs, what does not, what is not decided yet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ada.scheduling.execution_plan import ExecutionPlan

ROW_PX, MIN_PX, MAX_PX = 10, 110, 300  # height of a layer, and of all of them
GAP = 0.5  # columns between heads and neuron groups
Rows = list[tuple[str, tuple[int, ...], tuple[int, ...]]]
"""Each layer's class, and the indices of its heads and of its neuron groups that run."""

STYLE = """
.plan { display: grid; grid-template-columns: auto 1fr 1fr; gap: 2px 8px; font-size: 0.8em; margin: 0; }
.plan svg { grid-column: 2 / 4; width: 100%; display: block; }
.plan .layers { grid-row: 2; display: flex; flex-direction: column; justify-content: space-between; text-align: right; }
.plan .on { fill: var(--plan-on, #2b5fb3); }
.plan .off { fill: #8883; }
.plan .undecided .off { fill: none; stroke: #888a; stroke-dasharray: 2 2; vector-effect: non-scaling-stroke; }
.plan figcaption { grid-column: 1 / 4; color: var(--body-text-color-subdued); }
.plan .undecided { opacity: 0.6; }
.plan .decided { transition: opacity 0.3s; transition-delay: calc(var(--row) * 25ms); }
@media (prefers-reduced-motion: reduce) { .plan .decided { transition: none; } }
"""
"""A layer that is decided grows out of what was not: the page changes the same elements."""


def plan_drawing(plan: ExecutionPlan) -> str:
    """Return a plan as HTML."""
    rows: Rows = [("decided", layer.heads, layer.neuron_groups) for layer in plan.layers]
    label = (
        f"Execution plan: {plan.layers_run} of {len(plan.layers)} layers run, {plan.heads_run} heads and "
        f"{plan.neuron_groups_run} neuron groups in all"
    )
    return _figure(rows, plan.num_switches, label, "Coloured: runs for this answer. Grey: does not.")


def undecided_drawing(state: Mapping[str, Any]) -> str:
    """Return what there is to plan before the plan is made, by a worker's ``latency_budget`` at ``/ready``."""
    every = tuple(range(state["switches"]))
    prefix, layers = state["prefix_layers"], state["layers"]
    rows: Rows = [("prefix", every, every) if index < prefix else ("undecided", (), ()) for index in range(layers)]
    label = f"Execution plan: {prefix} of {layers} layers run in any case, the others are not decided yet"
    caption = f"The first {prefix} layers read the budget; then the scheduler decides what runs of the others."
    return _figure(rows, state["switches"], label, caption)


def _figure(rows: Rows, switches: int, label: str, caption: str) -> str:
    height = min(MAX_PX, max(MIN_PX, ROW_PX * len(rows)))
    every = range(switches)
    layers = "".join(
        f"<g class='{kind}' style='--row: {row}'>{_cells(row, heads, groups, switches, 'on')}"
        f"{_cells(row, set(every) - set(heads), set(every) - set(groups), switches, 'off')}</g>"
        for row, (kind, heads, groups) in enumerate(rows)
    )
    return (
        f"<figure class='plan'><span></span><span>attention heads</span><span>neuron groups</span>"
        f"<span class='layers' aria-hidden='true'><span>layer 1</span><span>{len(rows)}</span></span>"
        f"<svg role='img' aria-label='{label}' style='height: {height}px' preserveAspectRatio='none' "
        f"viewBox='0 0 {2 * switches + GAP} {len(rows)}'>{layers}</svg><figcaption>{caption}</figcaption></figure>"
    )


def _cells(row: int, heads: Iterable[int], groups: Iterable[int], switches: int, kind: str) -> str:
    """One path for a layer's switches of one kind; "" without any."""
    columns = [*sorted(heads), *(switches + GAP + group for group in sorted(groups))]
    outline = "".join(f"M{column + 0.05:g} {row + 0.08:g}h.9v.84h-.9z" for column in columns)
    return f"<path class='{kind}' d='{outline}'/>" if outline else ""
