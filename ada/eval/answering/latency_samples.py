"""Measures how long answers take: a sample of the questions, each asked alone, under one run after the other.

The runs take turns at every question, so that a machine that is busier for a while slows all of them. Layers are cut
to a plan the first time it is seen, so a question is asked twice: the first time includes a new plan's cost (cold plan
cache), the second does not (warm).
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ada.eval.answering.answer_file import AnswerFile, GivenTimes
from ada.eval.answering.batches import Answerer, Batch
from ada.eval.answering.model_specs import Run, run_by_path
from ada.eval.questions.question_set import QuestionSet

WARM_UP = 3  # questions that are asked first, and not counted
TOKENS = 9  # of every timed answer: the first, and eight after it


@dataclass(frozen=True)
class LatencySamples:
    """Measured milliseconds of one run.

    ``ttft_ms``: time to first token of each timed answer; ``inter_token_ms``: of every further token; ``warm_ttft_ms``:
    time to first token of the same answers given again, with a warm plan cache.
    """

    ttft_ms: tuple[float, ...]
    inter_token_ms: tuple[float, ...]
    warm_ttft_ms: tuple[float, ...]

    @classmethod
    def of(cls, given: Sequence[GivenTimes]) -> LatencySamples:
        """Gather the times of all timed answers."""
        return cls(
            tuple(times.first_token_ms for times in given),
            tuple(ms for times in given for ms in times.token_ms),
            tuple(times.again_ms for times in given),
        )

    @property
    def ttft_p50_ms(self) -> float:
        """Median time to first token."""
        return percentile(self.ttft_ms, 50)

    @property
    def warm_ttft_p50_ms(self) -> float:
        """Median time to first token with a warm plan cache."""
        return percentile(self.warm_ttft_ms, 50)

    @property
    def inter_token_p50_ms(self) -> float:
        """Median inter-token latency of all tokens after the first."""
        return percentile(self.inter_token_ms, 50)

    def to_json(self) -> dict[str, Any]:
        """Return medians and 95th percentiles, and the number of timed answers."""
        named = {
            "first_token_ms": self.ttft_ms,
            "first_token_again_ms": self.warm_ttft_ms,
            "token_ms": self.inter_token_ms,
        }
        figures = {
            name: {"median": percentile(values, 50), "p95": percentile(values, 95)} for name, values in named.items()
        }
        return {"answers": len(self.ttft_ms), **figures}


def percentile(values: Sequence[float], percent: float) -> float:
    """Return a percentile of ``values``, interpolated between the two nearest ones."""
    return float(np.percentile(values, percent))


def sample(questions: QuestionSet, count: int, seed: int) -> list[int]:
    """Draw positions of ``count`` questions evenly; of all, where there are fewer."""
    return random.Random(seed).sample(range(len(questions.items)), min(count, len(questions.items)))


def schedule(batches: Sequence[Batch], paths: Sequence[Path]) -> Iterator[tuple[Batch, Path]]:
    """Yield every question with every run's file; the run that is asked first changes from question to question."""
    for turn, batch in enumerate(batches):
        start = turn % len(paths) if paths else 0
        for path in (*paths[start:], *paths[:start]):
            yield batch, path


def measure(
    answerer: Answerer, questions: QuestionSet, paths: Mapping[Run, Path], count: int, seed: int
) -> dict[Run, LatencySamples]:
    """Time ``count`` questions under every run. Runs with one path share it.

    A stopped call is taken up where it was. Where the disk has all times of some runs and none of others, they are of
    another call: then all are timed again, as only runs that take turns can be compared.
    """
    run_of = run_by_path(paths)
    positions = sample(questions, count, seed)
    files = _files(run_of)
    held = [sum(file.holds([position]) for position in positions) for file in files.values()]
    if max(held) - min(held) > 1:
        print("times were measured under other runs before; all are measured again, in turn", file=sys.stderr)
        for file in files.values():
            file.remove()
        files = _files(run_of)
    batches = answerer.batches(questions.items, 1, positions)
    waiting = [path for path, file in files.items() if not file.holds(positions)]

    def times_of(batch: Batch, path: Path) -> GivenTimes:
        return answerer.time(batch, run_of[path].options(), seed, TOKENS)

    others = sorted(set(range(len(questions.items))) - set(positions)) or positions  # new plans are to be new later
    for batch, path in schedule(answerer.batches(questions.items, 1, others[:WARM_UP]), waiting):
        times_of(batch, path)
    turns = tqdm(schedule(batches, waiting), total=len(batches) * len(waiting), desc="times", unit=" answers")
    for batch, path in turns:
        if not files[path].holds(batch.positions):
            files[path].append([times_of(batch, path)])
    samples = {path: LatencySamples.of(file.finish(positions)) for path, file in files.items()}
    return {run: samples[path] for run, path in paths.items()}


def _files(paths: Iterable[Path]) -> dict[Path, AnswerFile[GivenTimes]]:
    return {path: AnswerFile(path, GivenTimes) for path in paths}
