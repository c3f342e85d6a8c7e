"""Are budgets in milliseconds kept? ``python -m ada.bench adherence``.

For AdaLLaVA-H and -L: this device is calibrated; then requests with prompts of 64 to 1,024 positions (with a picture,
up to where the model cuts a prompt off), each with a budget drawn from what its prompt can reach, the predicted p95 of
the cheapest plan to that of the whole model, under the corrections that follow what the device does, from call to call
and within one (``ada/latency/ttft_predictor.py``). From request ``--busy-from`` on a second process keeps one core
busy, and each request runs once more, right behind, under the calibration as it is. What can be reached is then later:
the p95 of a few prompts under that load over the calibration's p95 says how many times, and budgets are drawn from as
many times more.

Prints one JSON object on the last line, by kind. ``met``: share of requests whose first token came in time.
``planned``: mean share of the budget that the granted plan was to use (its p95, predicted as the plan was made).
``used``: mean share that it did use, 1 at the most. Under load the first ``SETTLE`` requests are left out.
``held_out``: errors of the calibration on its own points that were not fitted, the fastest run of each;
``request_errors``: on every quiet request, a single run, none of which was fitted.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from ada.budget import TimeBudget
from ada.config import AdaLlavaConfig
from ada.latency.latency_model import Workload
from ada.latency.measure import Timer, calibrate, draw_points, relative_errors, timer_of
from ada.latency.ttft_predictor import TTFTPredictor
from ada.model.modeling import AdaLlavaLlamaForCausalLM
from ada.protocols import is_adaptive
from llava.errors import OptionError
from llava.model.loaded_model import open_model
from llava.program import run_program

LEAST_TOKENS = 64
SETTLE = 20  # requests under load that the correction may take
PROBES = 50  # prompts that tell how much slower a busy device is
BILLION = {
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 18,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "vocab_size": 32000,
    "max_position_embeddings": 2048,
}
BUSY = "import os\nparent = os.getppid()\nprint(flush=True)\nwhile os.getppid() == parent:\n    sum(range(1000000))"


@dataclass(frozen=True)
class RequestOutcome:
    """One request, in milliseconds: its budget; the time to first token, predicted (p95) and measured; whether the
    device was busy; measured over predicted in the middle, of the first token and of the others."""

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


def summary(kept: Sequence[RequestOutcome]) -> dict[str, float | int | None]:
    """Shares in [0, 1]; None where there are no requests."""
    if not kept:
        return {"requests": 0, "met": None, "planned": None, "used": None}
    return {
        "requests": len(kept),
        "met": fmean(one.met for one in kept),
        "planned": fmean(one.predicted_ms / one.budget_ms for one in kept),
        "used": fmean(min(1.0, one.measured_ms / one.budget_ms) for one in kept),
    }


def random_billion(kind: str) -> Any:
    """A text model of about a billion random weights, in bfloat16, with a scheduler of ``kind``."""
    torch.manual_seed(0)
    config = AdaLlavaConfig(**BILLION, scheduler_type=kind, scheduler_rank=8, pad_token_id=0, dtype="bfloat16")
    return AdaLlavaLlamaForCausalLM._from_config(config, dtype=torch.bfloat16).eval()


@contextlib.contextmanager
def one_core_busy() -> Iterator[None]:
    """A process that computes, as long as it is wanted; entered once it does."""
    with subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE) as process:
        try:
            if process.stdout is not None:
                process.stdout.readline()
            yield
        finally:
            process.kill()


def slowdown(calibrated: TTFTPredictor, points: Sequence[Workload], timer: Timer) -> float:
    """How many times the calibration's p95 the p95 of first tokens is now; at least 1."""
    ratios = [timer(workload).prefill.ttft_ms / calibrated.first_token_ms(workload) for workload in points]
    return max(1.0, float(np.percentile(ratios, 95)))


def ask(
    model: Any, workload: Workload, budget: TimeBudget, times: TTFTPredictor, timer: Timer, busy: bool
) -> RequestOutcome:
    """One request under one calibration, which learns from it."""
    ran = timer(workload, budget, times)
    workload = replace(workload, num_units=ran.num_units)
    first_ratio, token_ratio = (
        ran.prefill.ttft_ms / times.expected(workload).ttft_ms,
        ran.inter_token_ms / times.token_ms(workload),
    )
    return RequestOutcome(
        budget.milliseconds, ran.ttft_p95_ms or 0.0, ran.prefill.ttft_ms, busy, first_ratio, token_ratio
    )


def measure(
    model: Any, points: Sequence[Workload], latency: TTFTPredictor, timer: Timer, busy_from: int
) -> tuple[dict[str, list[RequestOutcome]], float]:
    """All requests, and how many times slower the load made the device."""
    fixed, slower = latency.fixed(), 1.0
    kept: dict[str, list[RequestOutcome]] = {"corrected": [], "fixed": []}
    chance = random.Random(1)
    with contextlib.ExitStack() as load, tqdm(points, desc="requests", file=sys.stderr) as bar:
        for number, workload in enumerate(bar):
            busy = number >= busy_from
            if number == busy_from:
                load.enter_context(one_core_busy())
                slower = slowdown(fixed, points[:PROBES], timer)
            ends = (Workload(workload.num_tokens, units, workload.num_images) for units in (0, model.units.tunable))
            budget = TimeBudget(slower * chance.uniform(*map(fixed.first_token_ms, ends)))
            kept["corrected"].append(ask(model, workload, budget, latency, timer, busy))
            if busy:
                kept["fixed"].append(ask(model, workload, budget, fixed, timer, busy))
            so_far = summary([one for one in kept["corrected"] if one.busy == busy])
            bar.set_postfix({name: f"{so_far[name]:.1%}" for name in ("met", "used")}, refresh=False)
    return kept, slower


def report(kept: dict[str, list[RequestOutcome]]) -> dict[str, Any]:
    """By calibration and load; what comes within ``SETTLE`` requests of the load is left out of its part."""
    found: dict[str, Any] = {"quiet": summary([one for one in kept["corrected"] if not one.busy])}
    for name, of in kept.items():
        found[f"busy, {name}"] = summary([one for one in of if one.busy][SETTLE:])
    return found


def request_errors(kept: dict[str, list[RequestOutcome]]) -> dict[str, Any] | None:
    """Errors of the calibration on the quiet requests; None where there are none."""
    quiet = [one for one in kept["corrected"] if not one.busy]
    if not quiet:
        return None
    ratios = {"prefill": [one.first_ratio for one in quiet], "decode": [one.token_ratio for one in quiet]}
    return {phase: relative_errors(of) for phase, of in ratios.items()}


def models(args: argparse.Namespace) -> Iterator[Any]:
    """One after the other: those of ``--kinds``, or the one of ``--model-path``."""
    if args.model_path is not None:
        yield open_model(vars(args)).model
        return
    for kind in args.kinds:
        bundled = Path(__file__).parents[1] / "checkpoints" / f"shapes-{kind}"
        yield random_billion(kind) if args.random_1b else open_model({**vars(args), "model_path": str(bundled)}).model


def figures(model: Any, args: argparse.Namespace) -> dict[str, Any]:
    """Calibrate, ask, and report on one model."""
    profile, _ = calibrate(model, args.points)
    points = draw_points(model, args.requests, seed=2, least_tokens=LEAST_TOKENS)
    latency = TTFTPredictor(profile, model.units)
    busy_from = args.requests if args.busy_from is None else args.busy_from
    kept, slower = measure(model, points, latency, timer_of(model, seed=2), busy_from)
    lengths = [workload.num_tokens for workload in points]
    return {
        **report(kept),
        "slowdown": slower,
        "spread": profile.spread,
        "lengths": [min(lengths), max(lengths)],
        "held_out": profile.errors,
        "request_errors": request_errors(kept),
    }


def main(arguments: list[str] | None = None) -> int:
    """The program; the exit code: 2 for what the user can mend."""
    parser = argparse.ArgumentParser(
        prog="python -m ada.bench adherence",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model-path", help="checkpoint folder or hub name; by default the bundled models")
    parser.add_argument("--random-1b", action="store_true", help="models of about 1B random weights instead")
    parser.add_argument("--kinds", nargs="+", choices=["H", "L"], default=["H", "L"], help="which of those")
    parser.add_argument("--requests", type=int, default=200, help="how many")
    parser.add_argument("--points", type=int, default=64, help="of the calibration that goes before")
    parser.add_argument("--busy-from", type=int, metavar="N", help="keep one core busy from this request on")
    args = parser.parse_args(arguments)
    logging.getLogger("transformers").setLevel(logging.ERROR)

    def work() -> None:
        if args.requests < 1 or args.points < 16:
            raise OptionError(f"--requests is {args.requests} and --points {args.points}; expected 1 and 16, or more")
        if args.busy_from is not None and args.busy_from < 0:
            raise OptionError(f"--busy-from is {args.busy_from}; expected the number of a request, from 0 on")
        if args.model_path is not None and args.random_1b:
            raise OptionError("--model-path and --random-1b are both given; expected one of them")
        found = {}
        for model in models(args):
            if not is_adaptive(model):
                raise OptionError(f"{args.model_path} has no scheduler, and so no budgets to keep")
            found[model.units.kind] = figures(model, args)
        name = args.model_path or ("random, 1B" if args.random_1b else "bundled")
        print(json.dumps({"model": name, "threads": torch.get_num_threads(), **found}))

    return run_program(work)
