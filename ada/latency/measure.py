"""Times prefills and decode steps of a loaded model over prompt lengths, plans and pictures, and fits the profile."""

from __future__ import annotations

import datetime
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from ada.budget import TimeBudget
from ada.latency.device_profile import TARGET_QUANTILE, DeviceFingerprint, Profile
from ada.latency.latency_model import PrefillTiming, Workload, decode_terms, fit, plan_terms, rest_terms
from ada.latency.ttft_predictor import TTFTPredictor, is_remainder_significant, rest_ratio
from llava.constants import IMAGE_TOKEN_INDEX
from llava.errors import OptionError
from llava.generation import TokenClock

LEAST_TOKENS, MOST_TOKENS = 32, 1024
NEW_TOKENS = 6
ROUNDS, SECONDS = (2, 6), 12.0


@dataclass(frozen=True)
class MeasuredWorkload:
    """The prefill of each run, and the least milliseconds of a decode step. The fastest run is what the device
    can do; what disturbs it is the spread's concern."""

    workload: Workload
    runs: tuple[PrefillTiming, ...]
    inter_token_ms: float

    @property
    def fastest(self) -> PrefillTiming:
        """The run whose first token came first."""
        return min(self.runs, key=lambda run: run.ttft_ms)


@dataclass(frozen=True)
class RunTiming:
    """One run: its prefill, milliseconds of a decode step, tunable units that were granted, and, of a calibrated model,
    the predicted p95 of the time to first token."""

    prefill: PrefillTiming
    inter_token_ms: float
    num_units: int
    ttft_p95_ms: float | None


Timer = Callable[..., RunTiming]
"""``timer(workload, budget=None)`` runs a workload once, on a new prompt, under ``budget`` or with its own units."""


def draw_points(model: Any, count: int, seed: int = 0, least_tokens: int = LEAST_TOKENS) -> list[Workload]:
    """Lengths from ``least_tokens`` on, even on a logarithmic scale, units and pictures even; the same for the same
    seed. They end at the model's last position, with a picture where it cuts a prompt off. One in eight has no units
    and one all of them: no fit has to guess the ends."""
    chance, units = random.Random(seed), model.units
    tower = model.get_vision_tower()
    picture = 0 if tower is None else tower.num_image_tokens
    most = min(MOST_TOKENS, getattr(model.config, "max_position_embeddings", None) or MOST_TOKENS)
    latency_token = int(model.scheduler is not None)
    cut = (getattr(model.config, "tokenizer_model_max_length", None) or MOST_TOKENS) + latency_token
    most_with = min(most, cut)
    points = []
    for number in range(count):
        pictures = int(tower is not None and picture + LEAST_TOKENS < most_with and chance.random() < 0.5)
        least, end = (max(least_tokens, LEAST_TOKENS + picture), most_with) if pictures else (least_tokens, most)
        tokens = round(least * (end / least) ** chance.random())
        drawn = chance.randint(0, units.tunable)
        points.append(Workload(tokens, {1: 0, 5: units.tunable}.get(number % 8, drawn), pictures))
    return points


def timer_of(model: Any, seed: int = 0) -> Timer:
    """The real one: random words and pixels through ``generate``."""
    chance = torch.Generator().manual_seed(seed)
    tower = model.get_vision_tower()
    place = 0 if tower is None else tower.num_image_tokens
    latency_token = int(model.scheduler is not None)

    def run(workload: Workload, budget: TimeBudget | None = None, predictor: TTFTPredictor | None = None) -> RunTiming:
        words = workload.num_tokens - workload.num_images * place - latency_token
        ids = torch.randint(3, model.config.vocab_size - 1, (1, words), generator=chance)
        pixels = None
        if workload.num_images:
            ids = torch.cat([ids[:, :1], torch.full((1, workload.num_images), IMAGE_TOKEN_INDEX), ids[:, 1:]], dim=1)
            side = tower.config.image_size
            pixels = torch.randn(workload.num_images, 3, side, side, generator=chance).to(model.device, model.dtype)
        clock = TokenClock(None)
        output = model.generate(
            ids.to(model.device),
            images=pixels,
            latency_budget=budget or model.units.fraction(workload.num_units),
            ttft_predictor=predictor,
            do_sample=False,
            max_new_tokens=NEW_TOKENS,
            min_new_tokens=NEW_TOKENS,
            use_cache=True,
            clock=clock,
            pad_token_id=0,
            return_dict_in_generate=True,
        )
        first_ms, report = clock.timing()["time_to_first_token_ms"], output.report
        prefill, num_units = (
            PrefillTiming(report.to_plan_ms, first_ms - report.preprocess_ms),
            model.units.tunable_of(report.granted),
        )
        return RunTiming(prefill, float(np.median(clock.token_ms())), num_units, report.ttft_p95_ms)

    return run


def warm_up(model: Any) -> None:
    """Run a short prompt once, whole, with a picture where the model has a tower: a process's first answer pays for
    reading the weights and starting threads, which no later one does and no calibration counts."""
    tower = model.get_vision_tower()
    pictures = int(tower is not None)
    tokens = LEAST_TOKENS + (tower.num_image_tokens if pictures else 0)
    timer_of(model)(Workload(tokens, model.units.tunable, pictures))


def time_points(points: Sequence[Workload], timer: Timer) -> list[MeasuredWorkload]:
    """Run each workload at least ``ROUNDS[0]`` times, in rounds over all of them; where rounds are short, up to
    ``ROUNDS[1]`` times within ``SECONDS``."""
    for workload in points[:3]:
        timer(workload)  # warm up
    found: list[list[RunTiming]] = [[] for _ in points]
    least, most = ROUNDS
    start = time.monotonic()
    with tqdm(total=least * len(points), desc="calibrating", file=sys.stderr, disable=not sys.stderr.isatty()) as bar:
        for number in range(most):
            if number >= least:
                if time.monotonic() - start > SECONDS:
                    break
                bar.total = (number + 1) * len(points)
            for place, workload in enumerate(points):
                found[place].append(timer(workload))
                bar.update()
    return [
        MeasuredWorkload(workload, tuple(ran.prefill for ran in all_of), min(ran.inter_token_ms for ran in all_of))
        for workload, all_of in zip(points, found, strict=True)
    ]


def profile_of(model: Any, timed: Sequence[MeasuredWorkload], held_out: Sequence[MeasuredWorkload]) -> Profile:
    """Fit on ``timed``; errors are those of ``held_out``, and the spreads those of all single runs."""
    units = model.units
    fastest = [t.fastest for t in timed]
    profile = Profile(
        surroundings=DeviceFingerprint.of(model),
        date=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        plan=fit([plan_terms(t.workload) for t in timed], [times.to_plan_ms for times in fastest]),
        rest=fit(
            [rest_terms(t.workload, units) for t in timed], [times.ttft_ms - times.to_plan_ms for times in fastest]
        ),
        decode=fit([decode_terms(t.workload, units) for t in timed], [t.inter_token_ms for t in timed]),
        spread=1.0,
        rest_spread=1.0,
        errors={},
    )
    latency = TTFTPredictor(profile, units)
    runs = [(latency.expected(t.workload), times) for t in (*timed, *held_out) for times in t.runs]
    first_ratios = [times.ttft_ms / expected.ttft_ms for expected, times in runs]
    rest_ratios = [rest_ratio(*pair) for pair in runs if is_remainder_significant(pair[0])]
    return replace(
        profile,
        spread=_high(first_ratios),
        rest_spread=_high(rest_ratios or first_ratios),
        errors={
            "prefill": relative_errors([t.fastest.ttft_ms / latency.expected(t.workload).ttft_ms for t in held_out]),
            "decode": relative_errors([t.inter_token_ms / latency.token_ms(t.workload) for t in held_out]),
        },
    )


def _high(ratios: Sequence[float]) -> float:
    """What ``TARGET_QUANTILE`` of them are below."""
    return float(np.percentile(ratios, 100 * TARGET_QUANTILE))


def relative_errors(ratios: Sequence[float]) -> dict[str, float]:
    """``median`` and ``p95`` of how far measured over predicted times are from 1."""
    errors = np.abs(np.asarray(ratios) - 1)
    return {"median": float(np.median(errors)), "p95": float(np.percentile(errors, 95))}


def calibrate(
    model: Any, points: int, timer: Timer | None = None, seed: int = 0
) -> tuple[Profile, list[MeasuredWorkload]]:
    """Measure ``points`` points, every fourth held out of the fit; the profile, and the held-out times. Raises
    OptionError for a model that has nothing to leave out."""
    if not model.units.tunable:
        raise OptionError(
            f"this model always runs all of its {model.units.num_layers} layers (num_prefix_layers): a budget in time "
            "has nothing to choose from; answer without one"
        )
    timed = time_points(draw_points(model, points, seed), timer or timer_of(model, seed))
    held_out = timed[::4]
    return profile_of(model, [t for t in timed if t not in held_out], held_out), held_out
