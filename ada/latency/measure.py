"""Measures a loaded model's prefills and decode steps, and fits the profile of the device."""

from __future__ import annotations

import datetime
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from tqdm import tqdm

from ada.budget import TimeBudget
from ada.image_tokens.amount import ALL, ALL_IMAGE_TOKENS, AUTO, Amount, ImageTokens
from ada.latency.design import HELD_OUT_EVERY, MIN_TOKENS, Design, image_tokens_of, image_tokens_read
from ada.latency.device_profile import DeviceFingerprint, Profile
from ada.latency.fitting import MeasuredWorkload, errors, fit_latency_model, spreads, token_spread
from ada.latency.latency_model import (
    PrefillTiming,
    Workload,
)
from ada.latency.step_timer import TimesSteps, step_timer, time_steps
from ada.latency.ttft_predictor import TTFTPredictor
from ada.model.reporting import cost_of
from ada.protocols import AdaptiveModel
from llava.constants import IMAGE_TOKEN_INDEX
from llava.errors import OptionError
from llava.token_clock import TokenClock

NEW_TOKENS = 10
STARTING = 3  # of these, whose time is not a decode step's: weights are not in the caches yet
MIN_ROUNDS, MAX_ROUNDS = 2, 6
MAX_SECONDS = 12.0  # after which no further round begins


@dataclass(frozen=True)
class RunTiming:
    """One run: its prefill, its median decode step in milliseconds, what ran, and the predicted p95 of the TTFT, where
    there was a predictor; the whole answer's time, and its tokens; what its first steps took more than the median.
    """

    prefill: PrefillTiming
    inter_token_ms: float
    ran: Workload
    ttft_p95_ms: float | None
    total_ms: float = 0.0
    new_tokens: int = 1
    start_ms: float = 0.0

    @property
    def mean_token_ms(self) -> float:
        """The mean time of the tokens after the first; 0 without any."""
        later = self.new_tokens - 1
        return (self.total_ms - self.prefill.ttft_ms) / later if later else 0.0


class Timer(Protocol):
    """Runs a workload once, on a new prompt."""

    def __call__(
        self, workload: Workload, budget: TimeBudget | None = None, predictor: TTFTPredictor | None = None
    ) -> RunTiming:
        """Run with the workload's own units, or under a budget with what ``predictor`` grants; return its times."""
        ...


class ModelTimer:
    """Times a loaded model: runs random token ids and pixels through ``generate``.

    auto: under a budget, image tokens are chosen by it, whatever a workload says of them. new_tokens: of an answer.
    """

    def __init__(self, model: AdaptiveModel, seed: int = 0, auto: bool = False, new_tokens: int = NEW_TOKENS) -> None:
        self.model, self.rng, self.auto = model, torch.Generator().manual_seed(seed), auto
        self.new_tokens = new_tokens

    def __call__(
        self, workload: Workload, budget: TimeBudget | None = None, predictor: TTFTPredictor | None = None
    ) -> RunTiming:
        """Run with the workload's own units, or under a budget with what ``predictor`` grants; return its times."""
        model, clock = self.model, TokenClock()
        output = model.generate(
            self._token_ids(workload).to(model.device),
            images=self._pixels(workload),
            latency_budget=budget,
            granted_units=torch.tensor([workload.num_units]) if budget is None else None,
            image_tokens=AUTO if self.auto and budget is not None else self._image_tokens(workload),
            ttft_predictor=predictor,
            do_sample=False,
            max_new_tokens=self.new_tokens,
            min_new_tokens=self.new_tokens,
            use_cache=True,
            clock=clock,
            pad_token_id=0,
            return_dict_in_generate=True,
        )
        report, steps = output.report, clock.token_ms()
        step_ms = float(np.median(steps[STARTING:] or steps))
        ttft_ms = clock.timing()["time_to_first_token_ms"] - report.preprocess_ms
        return RunTiming(
            prefill=PrefillTiming(report.to_plan_ms, ttft_ms),
            inter_token_ms=step_ms,
            ran=cost_of(report).workload(model, model.units.tunable_of(report.granted)),
            ttft_p95_ms=report.ttft_p95_ms,
            total_ms=ttft_ms + sum(steps),
            new_tokens=len(clock.stamps),
            start_ms=sum(steps[:STARTING]) - STARTING * step_ms,
        )

    def _token_ids(self, workload: Workload) -> torch.Tensor:
        """Draw a prompt (1, t) that becomes ``workload.num_tokens`` positions, with its images after the first id."""
        image_tokens = workload.num_images * image_tokens_read(workload, image_tokens_of(self.model))[0]
        text = workload.num_tokens - image_tokens - (self.model.scheduler is not None)  # and the latency token
        ids = torch.randint(3, self.model.config.vocab_size - 1, (1, text), generator=self.rng)
        return torch.cat([ids[:, :1], torch.full((1, workload.num_images), IMAGE_TOKEN_INDEX), ids[:, 1:]], dim=1)

    def _image_tokens(self, workload: Workload) -> ImageTokens:
        """Return how many tokens of an image the workload reads."""
        if not workload.num_images:
            return ALL_IMAGE_TOKENS
        front, late = image_tokens_read(workload, image_tokens_of(self.model))
        entering = Amount(front) if workload.num_selected else ALL
        return ImageTokens(entering, Amount(late) if late < front else None)

    def _pixels(self, workload: Workload) -> torch.Tensor | None:
        """Draw the images' pixels (num_images, 3, S, S)."""
        if not workload.num_images:
            return None
        side = self.model.get_vision_tower().config.image_size
        pixels = torch.randn(workload.num_images, 3, side, side, generator=self.rng)
        return pixels.to(self.model.device, self.model.dtype)


def warm_up(model: AdaptiveModel) -> None:
    """Run a short prompt once with all units, and an image where the model has a vision tower.

    A process's first answer pays for reading the weights and starting threads; no later answer does, and no
    calibration counts it.
    """
    image_tokens = image_tokens_of(model)
    ModelTimer(model)(Workload(MIN_TOKENS + image_tokens, model.units.tunable, int(image_tokens > 0)))


def time_workloads(workloads: Sequence[Workload], timer: Timer) -> list[MeasuredWorkload]:
    """Run all workloads in rounds: ``MIN_ROUNDS`` of them, and up to ``MAX_ROUNDS`` within ``MAX_SECONDS``."""
    for workload in workloads[:3]:
        timer(workload)  # warm up
    rounds: list[list[RunTiming]] = []
    start, count = time.monotonic(), len(workloads)
    with tqdm(total=MIN_ROUNDS * count, desc="calibrating", disable=not sys.stderr.isatty()) as bar:
        while len(rounds) < MIN_ROUNDS or (len(rounds) < MAX_ROUNDS and time.monotonic() - start <= MAX_SECONDS):
            bar.total = max(MIN_ROUNDS, len(rounds) + 1) * count
            rounds.append([])
            for workload in workloads:
                rounds[-1].append(timer(workload))
                bar.update()
    return [_measured(workload, runs) for workload, runs in zip(workloads, zip(*rounds, strict=True), strict=True)]


def _measured(workload: Workload, runs: Sequence[RunTiming]) -> MeasuredWorkload:
    step_ms, start_ms = (min(of) for of in ([run.inter_token_ms for run in runs], [run.start_ms for run in runs]))
    means = tuple(run.mean_token_ms for run in runs)
    # Merged, an image has as many tokens as it needs, not as many as the tower makes of it.
    workload = replace(workload, num_tokens=round(float(np.mean([run.ran.num_tokens for run in runs]))))
    return MeasuredWorkload(workload, tuple(run.prefill for run in runs), step_ms, start_ms, means)


def calibrate(
    model: AdaptiveModel,
    points: int,
    timer: Timer | None = None,
    seed: int = 0,
    timer_of_steps: TimesSteps | None = None,
) -> tuple[Profile, list[MeasuredWorkload]]:
    """Measure ``points`` workloads, fit all but every fourth; return the profile and the held-out measurements.

    A fourth as many decode steps of several rows are timed, too. timer, timer_of_steps: by default the model's. Raises
    OptionError for a model without tunable layers.
    """
    units = model.units
    if not units.tunable:
        raise OptionError(
            f"this model always runs all of its {units.num_layers} layers (num_prefix_layers): a budget in time has "
            "nothing to choose from; answer without one"
        )
    design = Design.of(model)
    measured = time_workloads(design.draw(points, seed), timer or ModelTimer(model, seed))
    timer_of_steps = timer_of_steps if timer is not None else timer_of_steps or step_timer(model, seed)
    steps = time_steps(design.draw_steps(points // 4, seed), timer_of_steps) if timer_of_steps else []
    held_out = measured[::HELD_OUT_EVERY]
    fitted = fit_latency_model([one for number, one in enumerate(measured) if number % HELD_OUT_EVERY], units, steps)
    spread, rest_spread = spreads(fitted, measured, units)
    start_ms = max(0.0, float(np.median([one.start_ms for one in measured])))
    profile = Profile(
        surroundings=DeviceFingerprint.of(model),
        date=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        plan=fitted.plan,
        rest=fitted.rest,
        decode=fitted.decode,
        spread=spread,
        rest_spread=rest_spread,
        errors=errors(fitted, held_out, units),
        start_ms=start_ms,
        token_spread=token_spread(fitted, measured, units, start_ms / (NEW_TOKENS - 1)),
    )
    return profile, held_out
