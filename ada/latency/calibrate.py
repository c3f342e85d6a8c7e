"""Measures this device, so that budgets may be times: ``python -m ada.calibrate --model-path DIR``.

Prefills and decode steps over prompt lengths, plans and pictures are timed, interleaved, and a small model is fitted
(``ada/latency/latency_model.py`` says which); a fourth of the points is held out and tells how well it predicts.
The profile goes to the user's cache folder, where every program finds it: ``--latency-budget 850ms``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ada.latency.device_profile import DeviceFingerprint
from ada.latency.latency_model import DECODE_TERMS, PLAN_TERMS, REST_TERMS
from ada.latency.measure import MeasuredWorkload, calibrate
from ada.latency.ttft_predictor import TTFTPredictor
from ada.protocols import is_adaptive
from llava.errors import OptionError
from llava.model.loaded_model import open_model
from llava.program import run_program


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(
        prog="python -m ada.calibrate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model-path", help="checkpoint folder or hub name; by default the bundled model")
    parser.add_argument("--model-base", help="base model, where --model-path holds a projector or an adapter alone")
    parser.add_argument("--planner", help="untrained planner, for a checkpoint without a scheduler")
    parser.add_argument("--device", help="cpu, cuda or mps; by default the best there is")
    parser.add_argument(
        "--points",
        type=int,
        default=64,
        help="points to time; each runs twice or, where that is soon done, up to six times",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the points")
    parser.add_argument("--plot", type=Path, help="PNG of predicted against measured times")
    return parser.parse_args(arguments)


def show(latency: TTFTPredictor, held_out: Sequence[MeasuredWorkload]) -> None:
    """Coefficients, and the points that were not fitted."""
    console, profile, units = Console(width=100), latency.profile, latency.units
    parts = {
        "to the plan": dict(zip(PLAN_TERMS, profile.plan, strict=True)),
        "behind it": dict(zip(REST_TERMS, profile.rest, strict=True)),
        "decode": dict(zip(DECODE_TERMS, profile.decode, strict=True)),
    }
    table = Table(title="milliseconds")
    table.add_column("term")
    for name in parts:
        table.add_column(name, justify="right")
    for term in dict.fromkeys((*PLAN_TERMS, *REST_TERMS)):
        table.add_row(term, *(f"{part[term]:.4g}" if term in part else "" for part in parts.values()))
    console.print(table)
    table = Table(title="held out: predicted and measured, ms")
    for column in ("positions", "share", "pictures", "to the plan", "measured", "first token", "measured", "a token"):
        table.add_column(column, justify="right")
    table.add_column("measured", justify="right")
    for timed in held_out:
        workload, expected, measured = timed.workload, latency.expected(timed.workload), timed.fastest
        table.add_row(
            str(workload.num_tokens),
            f"{units.fraction(workload.num_units):.2f}",
            str(workload.num_images),
            f"{expected.to_plan_ms:.1f}",
            f"{measured.to_plan_ms:.1f}",
            f"{expected.ttft_ms:.1f}",
            f"{measured.ttft_ms:.1f}",
            f"{latency.token_ms(workload):.2f}",
            f"{timed.inter_token_ms:.2f}",
        )
    console.print(table)
    for phase, errors in profile.errors.items():
        console.print(f"{phase}: error median {errors['median']:.1%}, p95 {errors['p95']:.1%}")
    console.print(f"p95 of measured over predicted time to first token: {profile.spread:.2f} before a call")
    console.print(f"and from the plan on, at the pace of the time up to it: {profile.rest_spread:.2f}")


def draw(path: Path, latency: TTFTPredictor, held_out: Sequence[MeasuredWorkload]) -> None:
    """Predicted against measured, both phases, as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.2), layout="constrained")
    points = [timed.workload for timed in held_out]
    panels = {
        "time to first token": ([latency.expected(p).ttft_ms for p in points], [t.fastest.ttft_ms for t in held_out]),
        "a token": ([latency.token_ms(p) for p in points], [t.inter_token_ms for t in held_out]),
    }
    for axis, (name, (said, measured)) in zip(figure.subplots(1, 2), panels.items(), strict=True):
        axis.scatter(said, measured, s=14)
        top = 1.05 * max(*said, *measured)
        axis.plot([0, top], [0, top], color="grey", linestyle="--", linewidth=1)
        axis.set(xlabel="predicted, ms", ylabel="measured, ms", title=name, xlim=(0, top), ylim=(0, top))
    partial = path.with_suffix(".part.png")
    figure.savefig(partial, dpi=120)
    partial.replace(path)


def run(args: argparse.Namespace) -> None:
    """Measure, show, store."""
    if args.points < 16:
        raise OptionError(f"--points is {args.points}; expected 16 or more, of which a fourth is held out")
    model = open_model(vars(args)).model
    if not is_adaptive(model):
        raise OptionError("this checkpoint has no scheduler, and so no budgets to calibrate; give --planner even")
    profile, held_out = calibrate(model, args.points, seed=args.seed)
    latency = TTFTPredictor(profile, model.units)
    show(latency, held_out)
    if args.plot is not None:
        draw(args.plot, latency, held_out)
    path = DeviceFingerprint.of(model).path
    profile.save(path)
    print(f"wrote {path}")


def main(arguments: list[str] | None = None) -> int:
    """The program; the exit code: 2 for what the user can mend."""
    args = parse_arguments(arguments)
    return run_program(lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
