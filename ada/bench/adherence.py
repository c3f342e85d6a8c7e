"""Counts how many budgets in milliseconds are kept: ``python -m ada.bench adherence``.

This device is calibrated for AdaLLaVA-H and -L. Then come requests with prompts of 64 to 1,024 positions (with an
image, up to where the model cuts a prompt off). Each has a budget drawn from what its prompt can reach: between the
predicted p95 of the cheapest plan and that of all units, under the corrections that follow the device from call to call
and within a call (``ada/latency/ttft_predictor.py``). From request ``--busy-from`` on a second process keeps one core
busy, and each request runs once more, directly afterwards, under the calibration alone. What can be reached is then
later: the p95 of a few prompts under that load over the calibration's p95 is the slowdown, and budgets are multiplied
by it.

Prints one JSON object on the last line, by kind. ``met``: share of requests whose first token came in time.
``planned``: mean share of the budget that the granted plan was to use (its p95, predicted when the plan was made).
``used``: mean share that it did use, at most 1. Under load the first ``SETTLE`` requests are left out. ``held_out``:
errors of the calibration on its own workloads that were not fitted, the fastest run of each; ``request_errors``: on
every quiet request, a single run, none of which was fitted. ``reach``: how many times lower the lowest budgets of
prompts with an image are than with all image tokens, which ``--image-tokens auto`` brings about.

With ``--answer-tokens N`` whole answers are promised, in three clauses (``ada/bench/answer_promises.py``).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from ada.bench.answer_promises import measure_answers
from ada.bench.answer_promises import report as answer_report
from ada.bench.busy_core import one_core_busy
from ada.bench.device import add_device_flag, device_named
from ada.bench.models import random_llava
from ada.budget import TimeBudget
from ada.frontier.reach import Amounts, amounts_of, minimum_ms
from ada.latency.design import Design
from ada.latency.fitting import relative_errors
from ada.latency.latency_model import Workload
from ada.latency.measure import ModelTimer, Timer, calibrate
from ada.latency.ttft_predictor import TTFTPredictor
from ada.protocols import AdaptiveModel, is_adaptive
from ada.scheduling.units import Units
from llava.errors import OptionError
from llava.model.loaded_model import open_model

MIN_TOKENS = 64
SETTLE = 20  # requests under load after which the corrections must have followed
PROBES = 50  # prompts that measure how much slower a busy device is


@dataclass(frozen=True)
class RequestOutcome:
    """One request: its budget and its TTFT, predicted (p95) and measured, in milliseconds; whether the device was busy.

    first_ratio, token_ratio: measured over expected TTFT and inter-token latency.
    """

    budget_ms: float
    predicted_ms: float
    measured_ms: float
    busy: bool
    first_ratio: float = 1.0
    token_ratio: float = 1.0

    @property
    def met(self) -> bool:
        """Whether the first token came in time."""
        return self.measured_ms <= self.budget_ms


def summary(outcomes: Sequence[RequestOutcome]) -> dict[str, float | int | None]:
    """Return mean shares in [0, 1]; None where there are no requests."""
    if not outcomes:
        return {"requests": 0, "met": None, "planned": None, "used": None}
    return {
        "requests": len(outcomes),
        "met": fmean(one.met for one in outcomes),
        "planned": fmean(one.predicted_ms / one.budget_ms for one in outcomes),
        "used": fmean(min(1.0, one.measured_ms / one.budget_ms) for one in outcomes),
    }


def slowdown(calibrated: TTFTPredictor, workloads: Sequence[Workload], timer: Timer) -> float:
    """Return the p95 of TTFTs now over the calibration's p95, at least 1."""
    ratios = [timer(workload).prefill.ttft_ms / calibrated.first_token_ms(workload) for workload in workloads]
    return max(1.0, float(np.percentile(ratios, 95)))


def run_request(
    workload: Workload, budget: TimeBudget, predictor: TTFTPredictor, timer: Timer, busy: bool
) -> RequestOutcome:
    """Run one request under a predictor, which learns from it."""
    run = timer(workload, budget, predictor)
    return RequestOutcome(
        budget_ms=budget.milliseconds or 0.0,
        predicted_ms=run.ttft_p95_ms or 0.0,
        measured_ms=run.prefill.ttft_ms,
        busy=busy,
        first_ratio=run.prefill.ttft_ms / predictor.expected(run.ran).ttft_ms,
        token_ratio=run.inter_token_ms / predictor.token_ms(run.ran),
    )


def measure(
    units: Units,
    workloads: Sequence[Workload],
    predictor: TTFTPredictor,
    timer: Timer,
    busy_from: int,
    amounts: Amounts | None = None,
) -> tuple[dict[str, list[RequestOutcome]], float]:
    """Run all requests; return their outcomes by predictor, and how many times slower the load made the device.

    amounts: of image tokens that a budget may choose; by default all are read.
    """
    fixed, slower = predictor.fixed(), 1.0
    outcomes: dict[str, list[RequestOutcome]] = {"corrected": [], "fixed": []}
    rng = random.Random(1)
    with contextlib.ExitStack() as load, tqdm(workloads, desc="requests", file=sys.stderr) as bar:
        for number, workload in enumerate(bar):
            busy = number >= busy_from
            if number == busy_from:
                load.enter_context(one_core_busy())
                slower = slowdown(fixed, workloads[:PROBES], timer)
            maximum_ms = fixed.first_token_ms(replace(workload, num_units=units.tunable))
            budget = TimeBudget(slower * rng.uniform(minimum_ms(fixed, workload, amounts), maximum_ms))
            outcomes["corrected"].append(run_request(workload, budget, predictor, timer, busy))
            if busy:
                outcomes["fixed"].append(run_request(workload, budget, fixed, timer, busy))
            so_far = summary([one for one in outcomes["corrected"] if one.busy == busy])
            bar.set_postfix({name: f"{so_far[name]:.1%}" for name in ("met", "used")}, refresh=False)
    return outcomes, slower


def report(outcomes: dict[str, list[RequestOutcome]]) -> dict[str, Any]:
    """Summarize outcomes by predictor and load, without the first ``SETTLE`` requests under load."""
    found: dict[str, Any] = {"quiet": summary([one for one in outcomes["corrected"] if not one.busy])}
    for name, of in outcomes.items():
        found[f"busy, {name}"] = summary([one for one in of if one.busy][SETTLE:])
    return found


def request_errors(outcomes: dict[str, list[RequestOutcome]]) -> dict[str, Any] | None:
    """Return the calibration's errors on the quiet requests; None where there are none."""
    quiet = [one for one in outcomes["corrected"] if not one.busy]
    if not quiet:
        return None
    ratios = {"prefill": [one.first_ratio for one in quiet], "decode": [one.token_ratio for one in quiet]}
    return {phase: relative_errors(of) for phase, of in ratios.items()}


def models(args: argparse.Namespace) -> Iterator[AdaptiveModel]:
    """Load one model after the other: those of ``--kinds``, or the one of ``--model-path``.

    Raises OptionError for a checkpoint that takes no budgets.
    """
    checkpoints = Path(__file__).parents[1] / "checkpoints"
    bundled = [str(checkpoints / f"shapes-{kind}") for kind in args.kinds]
    if args.random_1b:
        device = device_named(args.device)
        yield from (random_llava(kind, device) for kind in args.kinds)
        return
    for path in [args.model_path] if args.model_path is not None else bundled:
        # Without the amount: the requests' budgets, which it goes by, are drawn later.
        model = open_model({**vars(args), "model_path": path, "image_tokens": None}).model
        if not is_adaptive(model):
            raise OptionError(f"{path} has no scheduler, and so no budgets to keep")
        yield model


def figures(model: AdaptiveModel, args: argparse.Namespace) -> dict[str, Any]:
    """Calibrate, run the requests, and return the figures of one model."""
    profile, _ = calibrate(model, args.points)
    design = replace(Design.of(model, MIN_TOKENS), selects=False, late=False)  # requests come with all image tokens
    workloads = design.draw(args.requests, seed=2)
    predictor = TTFTPredictor(profile, model.units)
    busy_from = args.requests if args.busy_from is None else args.busy_from
    amounts = amounts_of(model) if args.image_tokens == "auto" else None
    if args.answer_tokens is not None:
        answers = ModelTimer(model, seed=2, new_tokens=args.answer_tokens)
        probes = ModelTimer(model, seed=3)

        def load() -> float:
            return slowdown(predictor.fixed(), workloads[:PROBES], probes)

        ended, slower = measure_answers(
            model.units, workloads, predictor, answers, args.answer_tokens, busy_from, one_core_busy, load
        )
        return {**answer_report(ended), "slowdown": slower, "held_out": profile.errors}
    timer = ModelTimer(model, seed=2, auto=amounts is not None)
    outcomes, slower = measure(model.units, workloads, predictor, timer, busy_from, amounts)
    fixed, images = predictor.fixed(), [one for one in workloads if one.num_images]
    reach = [minimum_ms(fixed, one) / minimum_ms(fixed, one, amounts) for one in images]
    lengths = [workload.num_tokens for workload in workloads]
    return {
        **report(outcomes),
        "slowdown": slower,
        "spread": profile.spread,
        "reach": fmean(reach) if reach else None,
        "lengths": [min(lengths), max(lengths)],
        "held_out": profile.errors,
        "request_errors": request_errors(outcomes),
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this benchmark."""
    parser.add_argument("--model-path", help="checkpoint folder or hub name; by default the bundled models")
    parser.add_argument(
        "--random-1b",
        action="store_true",
        help="time LLaVAs of random weights instead: a decoder of about 1B, with LLaVA-1.5's 576 positions an image",
    )
    parser.add_argument(
        "--kinds",
        nargs="+",
        choices=["H", "L"],
        default=["H", "L"],
        help="kinds of the bundled or random models: heads and neurons (H), layers (L)",
    )
    parser.add_argument("--requests", type=int, default=200, help="number of requests for each model")
    parser.add_argument("--points", type=int, default=64, help="workloads of the calibration, 16 or more")
    parser.add_argument(
        "--image-tokens",
        choices=["all", "auto"],
        default="all",
        help="what is read of an image: all of its tokens, or what the budget pays for, down to the cheapest amount",
    )
    parser.add_argument(
        "--answer-tokens", type=int, metavar="N", help="promise whole answers of N tokens, in three clauses"
    )
    parser.add_argument("--busy-from", type=int, metavar="N", help="keep one core busy from request N on")
    add_device_flag(parser, default="auto")


def run(args: argparse.Namespace) -> None:
    """Measure every model, and print the figures. Raises OptionError for flags that make no sense."""
    logging.getLogger("transformers").setLevel(logging.ERROR)
    if args.requests < 1 or args.points < 16:
        raise OptionError(f"--requests is {args.requests} and --points {args.points}; expected 1 and 16, or more")
    if args.busy_from is not None and args.busy_from < 0:
        raise OptionError(f"--busy-from is {args.busy_from}; expected the number of a request, from 0 on")
    if args.answer_tokens is not None and (args.answer_tokens < 2 or args.image_tokens == "auto"):
        raise OptionError(
            f"--answer-tokens is {args.answer_tokens}, with --image-tokens {args.image_tokens}; expected 2 or more, "
            "with all image tokens"
        )
    if args.model_path is not None and args.random_1b:
        raise OptionError("--model-path and --random-1b are both given; expected one of them")
    found = {model.units.kind: figures(model, args) for model in models(args)}
    name = args.model_path or ("random, 1B" if args.random_1b else "bundled")
    print(json.dumps({"model": name, "threads": torch.get_num_threads(), **found}))
