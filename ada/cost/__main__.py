"""What an answer costs on a device that is not at hand: ``python -m ada.cost``.

Floating-point operations, bytes moved and roofline time of prefill and decode by part, and peak memory. A lower bound:
no device reaches both of its figures at once. ``--as-published`` states the figures as the published AdaLLaVA code
counts them, so that the paper's can be checked.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from ada.budget import LatencyBudget
from ada.cost.as_published import heads_of, published_figures
from ada.cost.estimate import Estimate, estimate, total
from ada.cost.hardware import HARDWARE, hardware_named
from ada.cost.sizes import LLAMA, Sizes, sizes_of
from ada.execution import plans_of
from ada.plan import ExecutionPlan
from ada.planners import planner_named
from llava.errors import OptionError
from llava.program import run_program


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(
        prog="python -m ada.cost", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="llama-7b", help=f"{', '.join(LLAMA)}, or a checkpoint's folder or hub name")
    parser.add_argument("--scheduler-type", choices=["H", "L"], help="by default the checkpoint's own, or H")
    parser.add_argument("--hardware", default="A100", help=", ".join(HARDWARE))
    parser.add_argument("--prompt-tokens", type=int, default=640, help="positions, those of pictures included")
    parser.add_argument("--gen-tokens", type=int, default=32, help="new tokens; the first comes out of prefill")
    parser.add_argument("--images", type=int, default=1, help="pictures in the prompt")
    parser.add_argument("--latency-budget", default="1.0", help="share of the decoder's prefill compute: 0.6 or 60%%")
    parser.add_argument("--plan", type=Path, help="JSON of an execution plan, instead of an even one for the budget")
    parser.add_argument("--as-published", action="store_true", help="count as the published code does")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args(arguments)


def plan_for(sizes: Sizes, budget: str, file: Path | None) -> ExecutionPlan:
    """The plan in ``file``, or an even one of as many units as the budget grants. Raises OptionError for one that does
    not fit the model."""
    units = sizes.units
    if file is None:
        granted = torch.tensor([units.granted(LatencyBudget.parse(budget).fraction)])
        return plans_of(planner_named("even")(units, granted, None, None), units)[0]
    try:
        text = file.read_text(encoding="utf-8")
        fields = json.loads(text)
    except (OSError, ValueError) as error:
        raise OptionError(f"--plan {file} cannot be read as JSON: {error}") from error
    plan = ExecutionPlan.from_json(fields.get("plan", fields) if isinstance(fields, dict) else fields)
    if (len(plan.layers), plan.num_switches) != (units.num_layers, units.num_switches):
        raise OptionError(
            f"--plan {file} has {len(plan.layers)} layers of {plan.num_switches} switches; the model has "
            f"{units.num_layers} of {units.num_switches}"
        )
    return plan


def report(args: argparse.Namespace) -> dict[str, Any]:
    """All figures. Raises OptionError for flags that make no sense."""
    for name, least in (("prompt_tokens", 1), ("gen_tokens", 1), ("images", 0)):
        if getattr(args, name) < least:
            raise OptionError(f"--{name.replace('_', '-')} is {getattr(args, name)}; expected {least} or more")
    sizes = sizes_of(args.model, args.scheduler_type)
    plan = plan_for(sizes, args.latency_budget, args.plan)
    facts = {"model": args.model, "prompt_tokens": args.prompt_tokens, "gen_tokens": args.gen_tokens}
    facts |= {"executed_share": plan.share, "layers": plan.layers_run, "heads": plan.heads_run}
    if args.as_published:
        heads = heads_of(plan, sizes.config)
        figures = published_figures(sizes.config, heads, args.hardware, args.prompt_tokens, args.gen_tokens)
        return {**facts, "hardware": args.hardware, **figures}
    hardware = hardware_named(args.hardware)
    found = estimate(sizes, plan, hardware, args.prompt_tokens, args.gen_tokens, args.images)
    if not args.json:
        show(found, f"{args.model} on {hardware.name}, {plan.share:.0%} of the decoder")
    return {**facts, "hardware": hardware.name, "source": hardware.source, **found.to_json()}


def show(found: Estimate, title: str) -> None:
    """The table for people."""
    table = Table(title=title)
    for column in ("", "part", "GFLOPs", "MB moved", "ms"):
        table.add_column(column, justify="left" if column in ("", "part") else "right")
    for phase, parts in (("prefill", found.prefill), ("each further token", found.decode)):
        for part, cost in {**parts, "all": total(parts.values())}.items():
            figures = f"{cost.flops / 1e9:,.1f}", f"{cost.bytes / 1e6:,.0f}", f"{cost.seconds * 1e3:,.2f}"
            table.add_row(phase, part, *figures)
            phase = ""
        table.add_section()
    console = Console(width=100)
    console.print(table)
    held = ", ".join(f"{part.replace('_', ' ')} {size / 1e9:.2f}" for part, size in found.memory.items() if size)
    console.print(f"peak memory {sum(found.memory.values()) / 1e9:.2f} GB: {held}")


def main(arguments: list[str] | None = None) -> int:
    """The program; the exit code: 2 for what the user can mend."""
    args = parse_arguments(arguments)

    def work() -> None:
        figures = report(args)
        if args.json:
            print(json.dumps(figures))
        elif args.as_published:
            for name, value in figures.items():
                print(f"{name:28} {value:.6g}" if isinstance(value, float) else f"{name:28} {value}")

    return run_program(work)


if __name__ == "__main__":
    raise SystemExit(main())
