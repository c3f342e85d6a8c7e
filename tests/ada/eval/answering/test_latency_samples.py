"""Latency samples: the runs take turns, and the figures are percentiles."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest

from ada.eval.answering.batches import Batch
from ada.eval.answering.latency_samples import LatencySamples, schedule

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
