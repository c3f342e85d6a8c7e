"""The order of rounds, and when they end."""

import random
from types import SimpleNamespace

import pytest
import torch

from ada.bench.decode.rounds import NEW_PLAN, Run, SubjectRounds, run_rounds, shuffled
from ada.bench.decode.subject import Setting, Subject
from ada.bench.decode.ways import ENGINE, TRANSFORMERS, RunTimes

MODEL = SimpleNamespace(device=torch.device("cpu"), config=SimpleNamespace(vocab_size=50))
SETTINGS = [Setting(budget, positions, 1) for budget in (1.0, 0.5) for positions in (4, 9)]


class Clock:
    """Seconds that pass as ways run."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("time.perf_counter", made)
    return made


def make_rounds(clock: Clock, seconds: float, calls: list | None = None) -> SubjectRounds:
    """Rounds of two ways that take so many seconds a run."""

    def way(name: str):
        def run(ids: torch.Tensor, budget: float) -> RunTimes:
            clock.now += seconds
            if calls is not None:
                calls.append((name, tuple(ids[0].tolist()), budget))
            return RunTimes(1.0, 2.0, 1.0)

        return run

    subject = Subject("bundled", "H", MODEL, SETTINGS, steps=2)
    runs = [Run(setting, name) for setting in SETTINGS for name in (ENGINE, TRANSFORMERS)]
    return SubjectRounds(subject, {name: way(name) for name in (ENGINE, TRANSFORMERS)}, runs)


def test_runs_of_the_same_prompts_follow_one_another_in_random_order() -> None:
    runs = [Run(setting, name) for setting in SETTINGS for name in (ENGINE, TRANSFORMERS)]
    orders = [shuffled(runs, random.Random(seed)) for seed in range(8)]
    for groups in orders:
        assert [len(group) for group in groups] == [4, 4]
        assert all(len({run.setting.positions for run in group}) == 1 for group in groups)
        assert {run for group in groups for run in group} == set(runs)
    assert len({str(groups) for groups in orders}) > 4


def test_first_round_warms_up_and_every_later_one_counts(clock) -> None:
    rounds = make_rounds(clock, 1.0)
    run_rounds([rounds], max_rounds=3, end=1e9, clock=clock)
    assert rounds.done == 4
    assert all(len(rounds.times[run]) == 3 for run in rounds.runs)


def test_two_rounds_run_however_short_the_time(clock) -> None:
    subjects = [make_rounds(clock, 5.0), make_rounds(clock, 1.0)]
    run_rounds(subjects, max_rounds=9, end=0, clock=clock)
    assert [one.done for one in subjects] == [2, 2]


def test_no_round_ends_after_the_time(clock) -> None:
    rounds = make_rounds(clock, 1.0)
    run_rounds([rounds], max_rounds=99, end=100, clock=clock)
    assert clock.now <= 100 and rounds.done == 100 // len(rounds.runs)


def test_subjects_share_the_time(clock) -> None:
    slow, fast = make_rounds(clock, 4.0), make_rounds(clock, 1.0)
    run_rounds([slow, fast], max_rounds=99, end=800, clock=clock)
    assert slow.seconds == pytest.approx(fast.seconds, abs=slow.longest)


def test_prompts_are_the_same_in_every_round_but_for_new_plans(clock) -> None:
    calls: list = []
    rounds = make_rounds(clock, 1.0, calls)
    rounds.runs = [Run(SETTINGS[-1], ENGINE), Run(SETTINGS[-1], NEW_PLAN)]
    run_rounds([rounds], max_rounds=3, end=1e9, clock=clock)
    counts = sorted([prompt for _, prompt, _ in calls].count(prompt) for prompt in {prompt for _, prompt, _ in calls})
    assert counts == [1, 1, 1, 1, 4], "a new one in each of four rounds, and the same one four times"


def test_progress_is_said_after_every_group_of_prompts(clock) -> None:
    said: list[str] = []
    run_rounds([make_rounds(clock, 1.0)], max_rounds=2, end=1e9, progress=said.append, clock=clock)
    assert len(said) == 3 * 2
    assert said[0].startswith("bundled H, warming up, ") and said[-1].startswith("bundled H, round 2, ")
    assert "engine 1.00, transformers 1.00 ms a token" in said[-1]
