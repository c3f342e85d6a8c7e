"""Draws an execution plan: as a figure, and as blocks of text for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ada.scheduling.execution_plan import ExecutionPlan

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ON, OFF = "█", "·"


def blocks(plan: ExecutionPlan) -> str:
    """Return one line a layer: its heads, then its neuron groups; a full block runs, a dot does not."""
    gates = plan.gates().bool().tolist()
    width = plan.num_switches
    lines = [f"layer {'heads':<{max(width, 5)}}  neuron groups"]
    for index, (heads, groups) in enumerate(gates):
        left, right = ("".join(ON if x else OFF for x in row) for row in (heads, groups))
        lines.append(f"{index + 1:>5} {left:<{max(width, 5)}}  {right}")
    return "\n".join(lines)


def figure(plan: ExecutionPlan, title: str = "") -> Figure:
    """Draw the layers from top to bottom, heads on the left, neuron groups on the right; what runs is dark."""
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure

    gates = plan.gates()
    fig = Figure(figsize=(7, 0.6 + 0.22 * len(plan.layers)), layout="constrained")
    panels = fig.subplots(1, 2, sharey=True)
    colours = ListedColormap(["#e8e8ee", "#2b5fb3"])
    for component, (axes, name) in enumerate(zip(panels, ("attention heads", "neuron groups"), strict=True)):
        axes.pcolormesh(gates[:, component].flip(0).numpy(), cmap=colours, vmin=0, vmax=1, edgecolors="white", lw=0.5)
        axes.set_title(name, fontsize=9)
        axes.set_xticks([0.5, plan.num_switches - 0.5], ["1", str(plan.num_switches)], fontsize=8)
    count = len(plan.layers)
    panels[0].set_yticks([i + 0.5 for i in range(count)], [str(count - i) for i in range(count)], fontsize=7)
    panels[0].set_ylabel("layer")
    if title:
        fig.suptitle(title, fontsize=10)
    return fig
