"""Are budgets in milliseconds kept? ``python -m ada.bench adherence``.

Requests with prompts of many lengths, each with a budget drawn from what its prompt can reach, run on a calibrated
model: once with the correction that follows what the device does (``ada/calibration/device_latency.py``) and once with
the calibration as it is, one behind the other. With ``--busy`` a second process keeps one core busy from half-way on;
what can be reached is then later, and budgets are drawn from as many times more as a few prompts take under that load.

Prints one JSON object on the last line: the share of requests that met their budget, the mean share of it that the
granted plan was to use (its predicted p95), and the mean share that it did use.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import multiprocessing
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

import torch
from tqdm import tqdm

from ada.budget import TimeBudget
from ada.calibration.device_latency import DeviceLatency
from ada.calibration.latency_model import Point
from ada.calibration.measure import Timer, calibrate, draw_points, timer_of
from ada.config import AdaLlavaConfig
from ada.model import AdaLlavaLlamaForCausalLM
from llava.errors import OptionError
from llava.program import run_program
from llava.serve.loaded_model import open_model

SETTLE = 20  # requests under load that the correction may take
PROBES = 12  # prompts that tell how much slower a busy device is
BILLION = {
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 22,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "vocab_size": 32000,
    "max_position_embeddings": 2048,
}


@dataclass(frozen=True)
class Kept:
    """One request: its budget, and the time to first token, predicted (p95) and measured; in milliseconds."""

    budget_ms: float
    predicted_ms: float
    measured_ms: float
    busy: bool

    @property
    def met(self) -> bool:
        """Whether the first token came in time."""
        return self.measured_ms <= self.budget_ms


def summary(kept: Sequence[Kept]) -> dict[str, float | int | None]:
    """Shares in [0, 1]; None where there are no requests."""
    if not kept:
        return {"requests": 0, "met": None, "planned": None, "used": None}
    return {
        "requests": len(kept),
        "met": fmean(one.met for one in kept),
        "planned": fmean(one.predicted_ms / one.budget_ms for one in kept),
        "used": fmean(one.measured_ms / one.budget_ms for one in kept),
    }


def random_billion() -> Any:
    """A text model of about a billion random weights, in bfloat16, with a scheduler of kind H."""
    torch.manual_seed(0)
    config = AdaLlavaConfig(**BILLION, scheduler_type="H", scheduler_rank=8, pad_token_id=0, dtype="bfloat16")
    return AdaLlavaLlamaForCausalLM._from_config(config, dtype=torch.bfloat16).eval()


def _burn() -> None:
    while True:
        pass


@contextlib.contextmanager
def one_core_busy() -> Iterator[None]:
    """A process that computes, as long as it is wanted."""
    process = multiprocessing.get_context("spawn").Process(target=_burn, daemon=True)
    process.start()
    try:
        yield
    finally:
        process.terminate()
        process.join()


def slowdown(calibrated: DeviceLatency, points: Sequence[Point], timer: Timer) -> float:
    """How many times longer than calibrated first tokens take now, in the middle; at least 1."""
    expected = [calibrated.first_token_ms(point) / calibrated.factor for point in points]
    return max(1.0, median(timer(point)[0] / ms for point, ms in zip(points, expected, strict=True)))


def measure(model: Any, points: Sequence[Point], latency: DeviceLatency, timer: Timer, busy: bool) -> dict[str, Any]:
    """All requests under both calibrations; lists of ``Kept``."""
    fixed, slower = DeviceLatency(latency.profile, model.units), 1.0
    kept: dict[str, list[Kept]] = {"corrected": [], "fixed": []}
    chance = random.Random(1)
    with contextlib.ExitStack() as load:
        for number, point in enumerate(tqdm(points, desc="requests", file=sys.stderr)):
            loaded = busy and number >= len(points) // 2
            if loaded and number == len(points) // 2:
                load.enter_context(one_core_busy())
                slower = slowdown(fixed, points[:PROBES], timer)
            ends = (Point(point.tokens, units, point.pictures) for units in (0, model.units.tunable))
            budget = TimeBudget(slower * chance.uniform(*map(fixed.first_token_ms, ends)))
            for name, times in (("corrected", latency), ("fixed", fixed)):
                model.latency = times
                granted = times.units_within(budget.milliseconds, point.tokens, point.pictures)
                said = times.first_token_ms(Point(point.tokens, granted, point.pictures))
                measured, _ = timer(point, budget)
                kept[name].append(Kept(budget.milliseconds, said, measured, loaded))
                if times is latency:
                    times.observe(said, measured)
    return kept


def report(kept: dict[str, list[Kept]]) -> dict[str, Any]:
    """By calibration and load; what comes within ``SETTLE`` requests of the load is left out of its part."""
    found = {}
    for name, of in kept.items():
        quiet, busy = ([one for one in of if one.busy == load] for load in (False, True))
        found[name] = {"quiet": summary(quiet), "busy": summary(busy[SETTLE:])}
    return found


def main(arguments: list[str] | None = None) -> int:
    """The program; the exit code: 2 for what the user can mend."""
    parser = argparse.ArgumentParser(
        prog="python -m ada.bench adherence",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model-path", help="checkpoint folder or hub name; by default the bundled model")
    parser.add_argument("--random-1b", action="store_true", help="a model of about 1B random weights instead")
    parser.add_argument("--requests", type=int, default=200, help="each runs under both calibrations")
    parser.add_argument("--points", type=int, default=64, help="of the calibration that goes before")
    parser.add_argument("--busy", action="store_true", help="keep one core busy from half-way on")
    args = parser.parse_args(arguments)
    logging.getLogger("transformers").setLevel(logging.ERROR)

    def work() -> None:
        if args.requests < 1 or args.points < 16:
            raise OptionError(f"--requests is {args.requests} and --points {args.points}; expected 1 and 16, or more")
        model = random_billion() if args.random_1b else open_model(vars(args)).model
        profile, _ = calibrate(model, args.points)
        points = draw_points(model, args.requests, seed=2)
        latency = DeviceLatency(profile, model.units)
        kept = measure(model, points, latency, timer_of(model, seed=2), args.busy)
        print(json.dumps({**report(kept), "spread": profile.spread, "errors": profile.errors}))

    return run_program(work)
