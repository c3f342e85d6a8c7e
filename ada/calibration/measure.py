"""Times prefills and decode steps of a loaded model over prompt lengths, plans and pictures, and fits the profile."""

from __future__ import annotations

import datetime
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tqdm import tqdm
from transformers import StoppingCriteriaList

from ada.budget import TimeBudget
from ada.calibration.latency_model import Point, decode_terms, fit, predict, prefill_terms
from ada.calibration.profile import AIM, Profile, Surroundings
from llava.constants import IMAGE_TOKEN_INDEX
from llava.generation import TokenClock

LEAST_TOKENS, MOST_TOKENS = 32, 1024
NEW_TOKENS = 6


@dataclass(frozen=True)
class Timed:
    """Milliseconds to the first token of each run, and of a decode step in the faster run. The fastest run is what the
    device can do; what disturbs it is the spread's concern."""

    point: Point
    first_ms: tuple[float, ...]
    token_ms: float


Timer = Callable[..., tuple[float, float]]
"""``timer(point, budget=None)`` runs a point once, on a new prompt, under ``budget`` or the point's own units:
milliseconds to the first token, and of a decode step."""


def draw_points(model: Any, count: int, seed: int = 0, least_tokens: int = LEAST_TOKENS) -> list[Point]:
    """Lengths from ``least_tokens`` on, even on a logarithmic scale, units and pictures even; the same for the same
    seed. They end at the model's last position, with a picture where it cuts a prompt off."""
    chance, units = random.Random(seed), model.units
    tower = model.get_vision_tower()
    picture = 0 if tower is None else tower.num_patches
    most = min(MOST_TOKENS, getattr(model.config, "max_position_embeddings", None) or MOST_TOKENS)
    latency_token = int(model.scheduler is not None)
    cut = (getattr(model.config, "tokenizer_model_max_length", None) or MOST_TOKENS) + latency_token
    most_with = min(most, cut)
    points = []
    for _ in range(count):
        pictures = int(tower is not None and picture + LEAST_TOKENS < most_with and chance.random() < 0.5)
        least, end = (max(least_tokens, LEAST_TOKENS + picture), most_with) if pictures else (least_tokens, most)
        tokens = round(least * (end / least) ** chance.random())
        points.append(Point(tokens, chance.randint(0, units.tunable), pictures))
    return points


def timer_of(model: Any, seed: int = 0) -> Timer:
    """The real one: random words and pixels through ``generate``."""
    chance = torch.Generator().manual_seed(seed)
    tower = model.get_vision_tower()
    place = 0 if tower is None else tower.num_patches
    latency_token = int(model.scheduler is not None)

    def run(point: Point, budget: TimeBudget | None = None) -> tuple[float, float]:
        words = point.tokens - point.pictures * place - latency_token
        ids = torch.randint(3, model.config.vocab_size - 1, (1, words), generator=chance)
        pixels = None
        if point.pictures:
            ids = torch.cat([ids[:, :1], torch.full((1, point.pictures), IMAGE_TOKEN_INDEX), ids[:, 1:]], dim=1)
            side = tower.config.image_size
            pixels = torch.randn(point.pictures, 3, side, side, generator=chance).to(model.device, model.dtype)
        clock = TokenClock(None)
        model.generate(
            ids.to(model.device),
            images=pixels,
            latency_budget=budget or model.units.fraction(point.tunable),
            do_sample=False,
            max_new_tokens=NEW_TOKENS,
            min_new_tokens=NEW_TOKENS,
            use_cache=True,
            stopping_criteria=StoppingCriteriaList([clock]),
            pad_token_id=0,
        )
        return clock.timing()["time_to_first_token_ms"], float(np.median(clock.token_ms()))

    return run


def warm_up(model: Any) -> None:
    """Run a short prompt once, whole, with a picture where the model has a tower: a process's first answer pays for
    reading the weights and starting threads, which no later one does and no calibration counts."""
    tower = model.get_vision_tower()
    pictures = int(tower is not None)
    tokens = LEAST_TOKENS + (tower.num_patches if pictures else 0)
    timer_of(model)(Point(tokens, model.units.tunable, pictures))


def time_points(points: Sequence[Point], timer: Timer, runs: int = 2) -> list[Timed]:
    """Each point ``runs`` times, one round of all points after the other."""
    for point in points[:3]:
        timer(point)  # warm up
    first: list[list[float]] = [[] for _ in points]
    token: list[list[float]] = [[] for _ in points]
    order = [place for _ in range(runs) for place in range(len(points))]
    for place in tqdm(order, desc="calibrating", file=sys.stderr, disable=not sys.stderr.isatty()):
        first_ms, token_ms = timer(points[place])
        first[place].append(first_ms)
        token[place].append(token_ms)
    return [Timed(p, tuple(f), min(t)) for p, f, t in zip(points, first, token, strict=True)]


def profile_of(model: Any, timed: Sequence[Timed], held_out: Sequence[Timed]) -> Profile:
    """Fit on ``timed``; errors and spread are those of ``held_out`` and, for the spread, of all single runs."""
    units = model.units
    prefill = fit([prefill_terms(t.point, units) for t in timed], [min(t.first_ms) for t in timed])
    decode = fit([decode_terms(t.point, units) for t in timed], [t.token_ms for t in timed])

    def ratios(of: Sequence[Timed]) -> list[float]:
        return [ms / predict(prefill, prefill_terms(t.point, units)) for t in of for ms in t.first_ms]

    fastest = [min(t.first_ms) / predict(prefill, prefill_terms(t.point, units)) for t in held_out]
    steps = [t.token_ms / predict(decode, decode_terms(t.point, units)) for t in held_out]
    return Profile(
        Surroundings.of(model),
        datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        prefill,
        decode,
        float(np.percentile([*ratios(timed), *ratios(held_out)], 100 * AIM)),
        {"prefill": relative_errors(fastest), "decode": relative_errors(steps)},
    )


def relative_errors(ratios: Sequence[float]) -> dict[str, float]:
    """``median`` and ``p95`` of how far measured over predicted times are from 1."""
    errors = np.abs(np.asarray(ratios) - 1)
    return {"median": float(np.median(errors)), "p95": float(np.percentile(errors, 95))}


def calibrate(model: Any, points: int, timer: Timer | None = None, seed: int = 0) -> tuple[Profile, list[Timed]]:
    """Measure ``points`` points, every fourth held out of the fit; the profile, and the held-out times."""
    timed = time_points(draw_points(model, points, seed), timer or timer_of(model, seed))
    held_out = timed[::4]
    return profile_of(model, [t for t in timed if t not in held_out], held_out), held_out
