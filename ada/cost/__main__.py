"""Estimates what an answer costs on hardware that you do not have: ``python -m ada.cost``.

Prints FLOPs, bytes moved and roofline time of prefill and decode by part, and the peak memory. The times are a lower
bound: no device reaches both of its figures at once. ``--as-published`` prints the figures as the published AdaLLaVA
code counts them, so that the paper's can be checked; ``--memory`` what weights, narrow layers and KV cache take.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ada.cost.estimate import Estimate, estimate
from ada.cost.hardware import HARDWARE, LIST, Hardware, hardware_named
from ada.cost.image_reading import PromptReading, prompt_reading
from ada.cost.memory_table import memory_report, show_memory
from ada.cost.plans import Heads, heads_of, plan_of_budget, plan_of_heads, read_plan
from ada.cost.published.figures import published_figures
from ada.cost.published.layer import Setting
from ada.cost.roofline import total
from ada.cost.sizes import LLAMA, Sizes, sizes_of
from ada.image_token_options import image_tokens_flag, token_selector_flag
from ada.image_tokens.amount import ALL_IMAGE_TOKENS
from ada.memory.narrow_limit import FLAG, add_narrow_limit_flag, narrow_limit_of
from ada.scheduling.execution_plan import ExecutionPlan
from llava.errors import OptionError
from llava.program import run_program

FULL_BUDGET = "1.0"


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m ada.cost", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser._negative_number_matcher = re.compile(r"^-[\d.]")  # "-5ms" is a value, to be refused as one
    for name, default, text in (
        ("--model", "llama-7b", f"model: {', '.join(LLAMA)}, or a checkpoint's folder or hub name"),
        (
            "--hardware",
            "A100-80G",
            f"device: {', '.join(HARDWARE)}; {LIST} prints each one's figures and source",
        ),
        (
            "--latency-budget",
            None,
            "share of the decoder's prefill with all image tokens (0.6, 60%%), or estimated TTFT (850ms)",
        ),
    ):
        parser.add_argument(name, default=default, help=text)
    for name, count, text in (
        ("--prompt-tokens", 640, "positions of the prompt with all image tokens"),
        ("--gen-tokens", 32, "tokens to generate; the first comes out of prefill"),
        ("--images", 1, "images in the prompt"),
    ):
        parser.add_argument(name, type=int, default=count, help=text)
    text = "kind of unit: heads and neurons (H) or layers (L); by default the checkpoint's own, or H"
    parser.add_argument("--scheduler-type", choices=["H", "L"], help=text)
    text = (
        "JSON file that replaces the even plan of the budget: an execution plan, or the published code's list of heads "
    )
    parser.add_argument("--plan", type=Path, help=f"{text}that run by layer, -1 for a layer that is skipped")
    _add_image_token_arguments(parser)
    text = "print what the model takes of the device's memory, by how its weights are stored"
    parser.add_argument("--memory", action="store_true", help=text)
    add_narrow_limit_flag(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    _add_published_arguments(parser.add_argument_group("figures as the published code counts them"))
    return parser.parse_args(arguments)


def _add_image_token_arguments(parser: argparse.ArgumentParser) -> None:
    text = (
        "how many tokens of each image the decoder reads: all, a number or a percentage, or two of these, as "
        "50%%/25%%, for those that enter it and those that its later layers read"
    )
    parser.add_argument("--image-tokens", type=image_tokens_flag, default=ALL_IMAGE_TOKENS, metavar="VALUE", help=text)
    text = "what chooses them, as for answers; by default the checkpoint's own, or salient and fastv"
    parser.add_argument("--token-selector", type=token_selector_flag, metavar="NAME", help=text)
    text = "first layer that reads the late tokens alone; by default that of the late selector"
    parser.add_argument("--late-layer", type=int, metavar="N", help=text)


def _add_published_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--as-published", action="store_true", help="count as the published code does")
    text = "sequences that run at once; needs --as-published or --memory"
    group.add_argument("--batch-size", type=int, default=1, help=text)
    for name, count, text in (
        ("--weight-bits", 16, "bits of a weight"),
        ("--activation-bits", 16, "bits of an activation"),
        ("--cache-bits", 16, "bits of a key or value in the KV cache"),
    ):
        group.add_argument(name, type=int, default=count, help=f"{text}; needs --as-published")
    text = "count attention as one fused operation; needs --as-published"
    group.add_argument("--flash-attention", action="store_true", help=text)


def report(args: argparse.Namespace) -> dict[str, Any]:
    """Return all figures, JSON-ready. Raises OptionError for flags that make no sense."""
    counts = {"prompt_tokens": 1, "gen_tokens": 1, "images": 0, "batch_size": 1}
    counts |= {"weight_bits": 1, "activation_bits": 1, "cache_bits": 1}
    for name, minimum in counts.items():
        if getattr(args, name) < minimum:
            raise OptionError(f"--{name.replace('_', '-')} is {getattr(args, name)}; expected {minimum} or more")
    setting = Setting(args.batch_size, args.weight_bits, args.activation_bits, args.cache_bits, args.flash_attention)
    if setting != Setting(args.batch_size if args.memory else 1) and not args.as_published:
        raise OptionError("--*-bits and --flash-attention need --as-published, --batch-size that or --memory")
    if args.memory and args.as_published:
        raise OptionError("--memory and --as-published print other figures; give one of the two")
    if args.memory and (args.latency_budget, args.plan) != (None, None):
        raise OptionError("--memory counts what the model takes under any plan; leave --latency-budget and --plan out")
    if args.narrow_cache_gb is not None and not args.memory:
        raise OptionError(f"{FLAG} needs --memory")
    leaves_out = args.image_tokens != ALL_IMAGE_TOKENS or args.token_selector or args.late_layer is not None
    if leaves_out and args.as_published:
        raise OptionError(
            "--as-published counts the positions of --prompt-tokens alone; give it those that the decoder reads, and "
            "leave --image-tokens, --token-selector and --late-layer out"
        )
    sizes = sizes_of(args.model, args.scheduler_type)
    work = _in_memory if args.memory else _estimated
    found = _as_published(args, sizes, setting) if args.as_published else work(args, sizes)
    return {"model": args.model, "prompt_tokens": args.prompt_tokens, "gen_tokens": args.gen_tokens, **found}


def _read(args: argparse.Namespace, sizes: Sizes) -> PromptReading:
    return prompt_reading(
        sizes, args.prompt_tokens, args.images, args.image_tokens, args.token_selector, args.late_layer
    )


def _in_memory(args: argparse.Namespace, sizes: Sizes) -> dict[str, Any]:
    hardware, positions = hardware_named(args.hardware), _read(args, sizes).prompt.front
    return memory_report(sizes, hardware, positions, args.gen_tokens, args.batch_size, narrow_limit_of(vars(args)))


def _estimated(args: argparse.Namespace, sizes: Sizes) -> dict[str, Any]:
    hardware, read = hardware_named(args.hardware), _read(args, sizes)

    def cost(plan: ExecutionPlan, gen_tokens: int) -> Estimate:
        return estimate(
            sizes, plan, hardware, read.prompt.front, gen_tokens, args.images, late=read.late, encoding=read.encoding
        )

    def granted(share: float) -> int:
        return read.share.granted(share, read.prompt)

    plan = _plan(args, sizes, lambda one: cost(one, 1).first_token_s, granted)
    if isinstance(plan, list):
        plan = plan_of_heads(plan, sizes)
    found = cost(plan, args.gen_tokens)
    share = _share_of_prefill(found, read, sizes)
    if not args.json:
        title = f"{args.model} on {hardware.name}, {plan.share:.0%} of the decoder"
        if read.images.late != read.images.all:
            title += f", {read.images.summary()}, share of the full prefill {share:.3f}"
        show(found, title, hardware)
    fits = sum(found.memory.values()) <= hardware.memory
    device = {"hardware": hardware.name, "source": hardware.source, "fits_in_memory": fits}
    runs = {"executed_share": plan.share, "layers": plan.layers_run, "heads": plan.heads_run}
    tokens = {"prefill_share": share, "image_tokens": read.images.to_json()}
    return {**runs, **tokens, **device, **found.to_json()}


def _share_of_prefill(found: Estimate, read: PromptReading, sizes: Sizes) -> float:
    """Return the operations of the layers over those of all layers at all image tokens."""
    run = found.prefill["prefix"].flops + found.prefill["tunable"].flops
    return run / (sizes.units.num_layers * read.share.layer_flops(read.prompt.full))


def _as_published(args: argparse.Namespace, sizes: Sizes, setting: Setting) -> dict[str, Any]:
    def figures(heads: Heads, gen_tokens: int) -> dict[str, float]:
        return published_figures(sizes.config, heads, args.hardware, args.prompt_tokens, gen_tokens, setting)

    plan = _plan(args, sizes, lambda one: figures(heads_of(one, sizes), 1)["prefill_time"])
    heads = plan if isinstance(plan, list) else heads_of(plan, sizes)
    runs = {"executed_share": sum(heads) / (len(heads) * sizes.config.num_attention_heads)}
    runs |= {"layers": sum(kept > 0 for kept in heads), "heads": sum(heads)}
    return {**runs, "hardware": args.hardware, **figures(heads, args.gen_tokens)}


def _plan(
    args: argparse.Namespace,
    sizes: Sizes,
    first_token_s: Callable[[ExecutionPlan], float],
    granted: Callable[[float], int] | None = None,
) -> ExecutionPlan | Heads:
    if args.plan is not None:
        return read_plan(args.plan, sizes)
    budget = FULL_BUDGET if args.latency_budget is None else args.latency_budget
    return plan_of_budget(sizes.units, budget, first_token_s, granted)


def show_hardware(as_json: bool) -> None:
    """Print the table of devices, or their figures as JSON."""
    if as_json:
        print(json.dumps([asdict(row) for row in HARDWARE.values()]))
        return
    table = Table(title="devices: figures that their makers state")
    for column in ("--hardware", "GB/s", "16-bit TFLOPS", "GB", "source"):
        table.add_column(column, justify="left" if column in ("--hardware", "source") else "right")
    for row in HARDWARE.values():
        figures = (f"{x:,.4g}" for x in (row.bandwidth / 1e9, row.flops / 1e12, row.memory / 1e9))
        table.add_row(row.name, *figures, row.source)
    Console(width=120).print(table)


def show(found: Estimate, title: str, hardware: Hardware) -> None:
    """Print the estimate as a table."""
    table = Table(title=title)
    for column in ("", "part", "GFLOPs", "MB moved", "ms"):
        table.add_column(column, justify="left" if column in ("", "part") else "right")
    for phase, parts in (("prefill", found.prefill), ("decode, a token", found.decode)):
        for part, cost in {**parts, "all": total(parts.values())}.items():
            figures = f"{cost.flops / 1e9:,.1f}", f"{cost.bytes / 1e6:,.0f}", f"{cost.seconds * 1e3:,.2f}"
            table.add_row(phase, part, *figures)
            phase = ""
        table.add_section()
    console = Console(width=100)
    console.print(table)
    held = ", ".join(f"{part.replace('_', ' ')} {size / 1e9:.2f}" for part, size in found.memory.items() if size)
    peak = sum(found.memory.values())
    console.print(f"peak memory {peak / 1e9:.2f} GB: {held}")
    if peak > hardware.memory:
        console.print(f"that is more than the {hardware.memory / 1e9:g} GB of {hardware.name}")


def main(arguments: list[str] | None = None) -> int:
    """Run the program and return its exit code: 2 for a user error."""
    args = parse_arguments(arguments)

    def work() -> None:
        figures = None if args.hardware == LIST else report(args)
        if figures is None:
            show_hardware(args.json)
        elif args.json:
            print(json.dumps(figures))
        elif args.memory:
            show_memory(figures)
        elif args.as_published:
            for name, value in figures.items():
                print(f"{name:28} {value:.6g}" if isinstance(value, float) else f"{name:28} {value}")

    return run_program(work)


if __name__ == "__main__":
    raise SystemExit(main())
