"""How long answers take: a sample of the questions, each asked alone, under one run after the other.

The runs take turns at every question, so that a machine that is busier for a while slows all of them. Layers are cut
to a plan when it is first seen, so a question is asked twice: what a new plan costs is in the first time, not in the
second.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from tqdm import tqdm

from ada.eval.answering.answer_file import AnswerFile, GivenTimes
from ada.eval.answering.batches import Answerer
from ada.eval.answering.model_specs import Run
from ada.eval.questions.question_set import QuestionSet

WARM_UP = 3  # questions that are asked first, and not counted
TOKENS = 9  # of every timed answer: the first, and eight behind it


@dataclass(frozen=True)
class LatencySamples:
    """Milliseconds: to the first token, one for each timed answer; of every token behind it; and to the first token of
    the same answer given again."""

    first_token_ms: tuple[float, ...]
    token_ms: tuple[float, ...]
    again_ms: tuple[float, ...]

    @property
    def first(self) -> float:
        """Median time to first token."""
        return median(self.first_token_ms)

    @property
    def again(self) -> float:
        """The same where the plan was seen before."""
        return median(self.again_ms)

    @property
    def token(self) -> float:
        """Median time of a token behind the first."""
        return median(self.token_ms)

    def to_json(self) -> dict[str, Any]:
        """Medians and 95th percentiles, and how many answers they are of."""
        return {
            "answers": len(self.first_token_ms),
            "first_token_ms": {"median": self.first, "p95": _p95(self.first_token_ms)},
            "first_token_again_ms": {"median": self.again, "p95": _p95(self.again_ms)},
            "token_ms": {"median": self.token, "p95": _p95(self.token_ms)},
        }


def _p95(values: Sequence[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(0.95 * len(values)))]


def sample(questions: QuestionSet, count: int, seed: int) -> list[int]:
    """Places of ``count`` questions, drawn evenly; of all, where there are fewer."""
    return random.Random(seed).sample(range(len(questions.items)), min(count, len(questions.items)))


def measure(
    answerer: Answerer, questions: QuestionSet, paths: dict[Run, Path], count: int, seed: int
) -> dict[Run, LatencySamples]:
    """Times of every run; those that are on the disk already are not taken again. Runs with one path share them."""
    files = {path: AnswerFile(path, GivenTimes) for path in paths.values()}
    asked = {path: run for run, path in reversed(paths.items())}
    places = sample(questions, count, seed)
    batches = answerer.batches([questions.items[place] for place in places], 1)
    if waiting := [file for file in files.values() if not file.holds(places)]:
        _warm_up(answerer, batches[:WARM_UP], [asked[file.path] for file in waiting], seed)
    for turn, batch in enumerate(tqdm(batches, desc="times", unit=" questions")):
        place = batch.places = [places[batch.places[0]]]
        for file in [*waiting[turn % len(files) :], *waiting[: turn % len(files)]]:
            if not file.holds(place):
                run = asked[file.path]
                file.append([answerer.time(batch, run.planner, run.budget, seed, TOKENS)])
    taken = {path: file.finish(places) for path, file in files.items()}
    return {run: _times(taken[path]) for run, path in paths.items()}


def _warm_up(answerer: Answerer, batches: Sequence[Any], runs: Sequence[Run], seed: int) -> None:
    for batch in batches:
        for run in runs:
            answerer.time(batch, run.planner, run.budget, seed, TOKENS)


def _times(given: Sequence[GivenTimes]) -> LatencySamples:
    return LatencySamples(
        tuple(times.first_token_ms for times in given),
        tuple(ms for times in given for ms in times.token_ms),
        tuple(times.again_ms for times in given),
    )
