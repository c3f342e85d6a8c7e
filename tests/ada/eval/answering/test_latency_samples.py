"""Latency samples: the runs take turns, and the figures are percentiles."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest

from ada.budget import LatencyBudget
from ada.eval.answering.answer_file import GivenTimes
from ada.eval.answering.batches import Batch
from ada.eval.answering.latency_samples import LatencySamples, measure, schedule
from ada.eval.answering.model_specs import Run
from ada.eval.questions.question_set import QuestionSet

PATHS = [Path("a"), Path("b"), Path("c")]
BATCHES = [Batch(number, [number], [], []) for number in range(4)]


def test_schedule_asks_each_question_of_each_run_once():
    turns = list(schedule(BATCHES, PATHS))
    assert sorted((batch.number, path.name) for batch, path in turns) == [(n, p) for n in range(4) for p in "abc"]
    assert [batch.number for batch, _ in turns] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3], "question by question"


def test_schedule_changes_the_run_that_is_asked_first():
    order = "".join(path.name for _, path in schedule(BATCHES, PATHS))
    assert order == "abc" + "bca" + "cab" + "abc"


def test_schedule_without_runs_is_empty():
    assert list(schedule(BATCHES, [])) == []


def test_latency_samples_are_summed_up_as_percentiles():
    samples = LatencySamples(tuple(map(float, range(1, 22))), (1.0, 2.0, 4.0, 8.0), (5.0,))
    assert samples.to_json() == {
        "answers": 21,
        "first_token_ms": {"median": 11.0, "p95": 20.0},
        "first_token_again_ms": {"median": 5.0, "p95": 5.0},
        "token_ms": {"median": statistics.median([1.0, 2.0, 4.0, 8.0]), "p95": pytest.approx(7.4)},
    }


class SlowingMachine:
    """Answers every question in as many milliseconds as were timed before; stops after as many as it is asked to."""

    def __init__(self, stop_after=None):
        self.asked, self.stop_after = [], stop_after

    def batches(self, items, size, positions):
        return [Batch(number, [position], [], []) for number, position in enumerate(positions)]

    def time(self, batch, options, seed, tokens):
        if len(self.asked) == self.stop_after:
            raise KeyboardInterrupt
        self.asked.append((batch.positions[0], options["latency_budget"].fraction))
        return GivenTimes(batch.positions[0], float(len(self.asked)), [1.0], 1.0)


@pytest.fixture
def timed(tmp_path):
    """``timed(machine, *budgets)`` times six of twenty questions; the samples by budget."""
    questions = QuestionSet("test", "test questions", list(range(20)))

    def run(machine, *budgets):
        runs = {Run("H", "learned", LatencyBudget(b)): tmp_path / f"{b:g}.jsonl" for b in budgets}
        found = measure(machine, questions, runs, 6, 0)
        return {run.budget.fraction: samples for run, samples in found.items()}

    return run


def test_a_stopped_call_is_taken_up_and_asks_nothing_twice(timed):
    stopped, resumed = SlowingMachine(stop_after=3 * 2 + 5), SlowingMachine()
    with pytest.raises(KeyboardInterrupt):
        timed(stopped, 1.0, 0.5)
    timed(resumed, 1.0, 0.5)
    counted = stopped.asked[6:] + resumed.asked[6:]
    assert len(counted) == len(set(counted)) == 12
    assert {position for position, _ in stopped.asked[:6]}.isdisjoint(position for position, _ in counted)


def test_times_of_another_call_are_measured_again_next_to_new_ones(timed, capsys):
    """Two runs on a quiet machine, then a third one when it is slow: the first two would look fast."""
    timed(SlowingMachine(), 1.0, 0.5)
    later = SlowingMachine()
    found = timed(later, 1.0, 0.75, 0.5)
    assert sorted(budget for _, budget in later.asked[9:]) == sorted([1.0, 0.75, 0.5] * 6)
    medians = [samples.ttft_p50_ms for samples in found.values()]
    assert max(medians) - min(medians) < 3 and "measured again" in capsys.readouterr().err
    nothing = SlowingMachine()
    timed(nothing, 1.0, 0.75, 0.5)
    assert not nothing.asked
