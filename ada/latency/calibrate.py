"""Calibrates a model on this device, so that budgets may be times: ``python -m ada.calibrate --model-path DIR``.

Prefills and decode steps over prompt lengths, plans and images are timed, interleaved, and a small model is fitted
(``ada/latency/latency_model.py`` describes it); a fourth of the workloads is held out and shows how well it predicts.
The profile goes to the user's cache folder, where every program finds it: ``--latency-budget 850ms``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ada.latency.device_profile import DeviceFingerprint, Profile
from ada.latency.fitting import MeasuredWorkload
from ada.latency.latency_model import DECODE_TERMS, PLAN_TERMS, REST_TERMS
from ada.latency.measure import calibrate
from ada.latency.ttft_predictor import TTFTPredictor
from ada.memory.narrow_limit import add_narrow_limit_flag
from ada.protocols import is_adaptive
from llava.errors import OptionError
from llava.files.atomic_write import atomic_path
from llava.model.loaded_model import open_model
from llava.program import run_program


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m ada.calibrate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model-path", help="checkpoint folder or hub name; by default the bundled model")
    parser.add_argument("--model-base", help="base model, where --model-path holds only a projector or an adapter")
    parser.add_argument("--planner", help="untrained planner (even, last, random) for a checkpoint without a scheduler")
    parser.add_argument("--device", help="device to measure: cpu, cuda or mps; by default the best one available")
    parser.add_argument("--load-8bit", action="store_true", help="measure with weights in 8 bits, for programs with it")
    parser.add_argument(
        "--load-4bit", action="store_true", help="measure with weights in 4 bits, for programs with it (extra: quant)"
    )
    parser.add_argument(
        "--points",
        type=int,
        default=64,
        help="workloads to time, 16 or more; each runs twice, and up to six times while 12 seconds have not passed",
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed of the workloads")
    add_narrow_limit_flag(parser)
    parser.add_argument("--plot", type=Path, help="PNG file for a plot of predicted against measured times")
    return parser.parse_args(arguments)


def show(predictor: TTFTPredictor, held_out: Sequence[MeasuredWorkload]) -> None:
    """Print the coefficients, and predicted against measured times of the held-out workloads."""
    console, profile = Console(width=100), predictor.profile
    console.print(_coefficient_table(profile))
    console.print(_held_out_table(predictor, held_out))
    for phase, errors in profile.errors.items():
        console.print(f"{phase}: error median {errors['median']:.1%}, p95 {errors['p95']:.1%}")
    console.print(f"p95 of measured over predicted time to first token: {profile.spread:.2f} before a call")
    console.print(f"and from the plan on, at the pace of the time up to it: {profile.rest_spread:.2f}")


def _coefficient_table(profile: Profile) -> Table:
    parts = {
        "to the plan": dict(zip(PLAN_TERMS, profile.plan, strict=True)),
        "after it": dict(zip(REST_TERMS, profile.rest, strict=True)),
        "decode": dict(zip(DECODE_TERMS, profile.decode, strict=True)),
    }
    table = Table(title="milliseconds")
    table.add_column("term")
    for name in parts:
        table.add_column(name, justify="right")
    for term in dict.fromkeys((*PLAN_TERMS, *REST_TERMS, *DECODE_TERMS)):
        table.add_row(term, *(f"{part[term]:.4g}" if term in part else "" for part in parts.values()))
    return table


def _held_out_table(predictor: TTFTPredictor, held_out: Sequence[MeasuredWorkload]) -> Table:
    table = Table(title="held out: predicted and measured, ms")
    for column in (
        "positions",
        "share",
        "images",
        "to the plan",
        "measured",
        "TTFT",
        "measured",
        "a token",
        "measured",
    ):
        table.add_column(column, justify="right")
    for one in held_out:
        workload, expected, measured = one.workload, predictor.expected(one.workload), one.fastest
        table.add_row(
            str(workload.num_tokens),
            f"{predictor.units.fraction(workload.num_units):.2f}",
            str(workload.num_images),
            f"{expected.to_plan_ms:.1f}",
            f"{measured.to_plan_ms:.1f}",
            f"{expected.ttft_ms:.1f}",
            f"{measured.ttft_ms:.1f}",
            f"{predictor.token_ms(workload):.2f}",
            f"{one.inter_token_ms:.2f}",
        )
    return table


def draw(path: Path, predictor: TTFTPredictor, held_out: Sequence[MeasuredWorkload]) -> None:
    """Plot predicted against measured times of both phases as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.2), layout="constrained")
    workloads = [one.workload for one in held_out]
    panels = {
        "time to first token": (
            [predictor.expected(w).ttft_ms for w in workloads],
            [m.fastest.ttft_ms for m in held_out],
        ),
        "a token": ([predictor.token_ms(w) for w in workloads], [m.inter_token_ms for m in held_out]),
    }
    for axis, (name, (predicted, measured)) in zip(figure.subplots(1, 2), panels.items(), strict=True):
        axis.scatter(predicted, measured, s=14)
        top = 1.05 * max(*predicted, *measured)
        axis.plot([0, top], [0, top], color="grey", linestyle="--", linewidth=1)
        axis.set(xlabel="predicted, ms", ylabel="measured, ms", title=name, xlim=(0, top), ylim=(0, top))
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)


def run(args: argparse.Namespace) -> None:
    """Measure, print and store. Raises OptionError for flags or a checkpoint that cannot be calibrated."""
    if args.points < 16:
        raise OptionError(f"--points is {args.points}; expected 16 or more, of which a fourth is held out")
    model = open_model(vars(args)).model
    if not is_adaptive(model):
        raise OptionError("this checkpoint has no scheduler, and so no budgets to calibrate; give --planner even")
    profile, held_out = calibrate(model, args.points, seed=args.seed)
    predictor = TTFTPredictor(profile, model.units)
    show(predictor, held_out)
    if args.plot is not None:
        draw(args.plot, predictor, held_out)
    path = DeviceFingerprint.of(model).path
    profile.save(path)
    print(f"wrote {path}")


def main(arguments: list[str] | None = None) -> int:
    """Run the program and return its exit code: 2 for a user error."""
    args = parse_arguments(arguments)
    return run_program(lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
