"""Times every setting of a subject in every way, round after round, what is compared next to each other."""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from ada.bench.decode.subject import Setting, Subject
from ada.bench.decode.ways import ENGINE, RunTimes, Way

NEW_PLAN = "engine, new prompts"  # the engine's way on prompts, and so plans, that it has not seen


@dataclass(frozen=True)
class Run:
    """A setting, and the way it is run in."""

    setting: Setting
    way: str


Progress = Callable[[str], None]
Runs = Mapping[Run, list[RunTimes]]


@dataclass
class SubjectRounds:
    """The rounds of one subject: all runs of a round, with the times of all rounds.

    Prompts are the same in every round, so that their plans' layers are there; those of ``NEW_PLAN`` are new ones.
    """

    subject: Subject
    ways: Mapping[str, Way]
    runs: Sequence[Run]
    times: dict[Run, list[RunTimes]] = field(default_factory=lambda: defaultdict(list), init=False)
    done: int = field(default=0, init=False)
    seconds: float = field(default=0.0, init=False)  # of all rounds
    longest: float = field(default=0.0, init=False)  # of the rounds that were timed

    def run_round(self, rng: random.Random, progress: Progress) -> None:
        """Run everything once, in random order: prompts of the same number and length follow one another.

        The first round warms up, and leaves no times. progress: called with a line of text after each such group.
        """
        start = time.perf_counter()
        for group in shuffled(self.runs, rng):
            measured = {run: self._run(run) for run in group}
            for run, times in measured.items():
                if self.done:
                    self.times[run].append(times)
            progress(self._said(group[0].setting, measured))
        spent = time.perf_counter() - start
        self.seconds += spent
        self.longest = max(self.longest, spent) if self.done else spent
        self.done += 1

    def _run(self, run: Run) -> RunTimes:
        ids = self.subject.prompts(run.setting, 1 + self.done if run.way == NEW_PLAN else 0)
        return self.ways[ENGINE if run.way == NEW_PLAN else run.way](ids, run.setting.budget)

    def _said(self, setting: Setting, measured: Mapping[Run, RunTimes]) -> str:
        """A line about what was just measured: steps of the full model."""
        of = f"round {self.done}" if self.done else "warming up"
        steps = [f"{run.way} {times.token_ms:.2f}" for run, times in measured.items() if run.setting.budget == 1]
        prompts = f"{setting.positions} positions, rows: {setting.rows}"
        return f"{self.subject.title}, {of}, {prompts}: {', '.join(sorted(steps))} ms a token at budget 1"


def shuffled(runs: Sequence[Run], rng: random.Random) -> list[list[Run]]:
    """Return the runs in random order, in groups with the same prompts."""

    def prompts(run: Run) -> tuple[int, int]:
        return run.setting.positions, run.setting.rows

    groups = [[*group] for _, group in groupby(sorted(runs, key=prompts), prompts)]
    rng.shuffle(groups)
    return [rng.sample(group, len(group)) for group in groups]


def run_rounds(
    subjects: Sequence[SubjectRounds],
    max_rounds: int,
    end: float,
    progress: Progress = lambda _: None,
    clock: Callable[[], float] = time.perf_counter,
) -> None:
    """Run rounds of all subjects, the one that took the shortest time so far next, up to ``max_rounds`` of each.

    Each gets one that warms up and one that counts; after that none begins that would end after ``end``, by ``clock``.
    progress: as ``SubjectRounds.run_round`` takes it.
    """
    rng = random.Random(0)
    while True:
        fits = [one for one in subjects if one.done <= max_rounds and (one.done < 2 or clock() + one.longest < end)]
        if not fits:
            return
        chosen = min(fits, key=lambda one: (min(one.done, 2), one.seconds))
        chosen.run_round(rng, progress)
