"""Medians, ratios of a round, and shares of the bandwidth."""

import pytest

from ada.bench.decode.rounds import NEW_PLAN, Run, SubjectRounds
from ada.bench.decode.subject import Setting
from ada.bench.decode.summary import lines, median_ratio, token_ms
from ada.bench.decode.ways import ENGINE, TRANSFORMERS, RunTimes
from ada.scheduling.execution_plan import ExecutionPlan

FULL, HALF = Setting(1.0, 12, 1), Setting(0.5, 12, 1)
PLANS = (ExecutionPlan.full(4, 8),)


def times(*steps: float) -> list[RunTimes]:
    """A run a round, with these milliseconds a token; the first token takes ten times as long."""
    return [RunTimes(10 * step, 11 * step, step, PLANS) for step in steps]


@pytest.fixture
def by_run(make_subject) -> dict:
    rounds = SubjectRounds(make_subject("H", steps=4), {}, [])
    rounds.times |= {
        Run(FULL, ENGINE): times(1, 4, 2),
        Run(FULL, TRANSFORMERS): times(2, 4, 8),
        Run(HALF, ENGINE): times(0.5, 1, 1),
        Run(HALF, NEW_PLAN): times(1.5, 1, 3),
    }
    return {(line["budget"], line["way"]): line for line in lines(rounds, bandwidth=1e9)}


def test_ratio_is_the_median_of_rounds_and_not_the_ratio_of_medians(by_run) -> None:
    line = by_run[1.0, ENGINE]
    assert line["token_ms"] == 2 and line["rounds"] == 3
    assert line["token_over_transformers"] == 0.5  # of 0.5, 1 and 0.25; medians alone: 2 / 4
    assert line["first_ms"] == 20 and line["first_over_transformers"] == 0.5
    assert by_run[0.5, ENGINE]["token_over_full"] == 0.5  # of 0.5, 0.25 and 0.5


def test_ratio_to_what_was_not_run_is_none(by_run) -> None:
    assert by_run[0.5, ENGINE]["token_over_transformers"] is None
    assert median_ratio({}, Run(FULL, ENGINE), Run(FULL, TRANSFORMERS), token_ms) is None


def test_new_plan_costs_what_its_second_token_comes_later(by_run) -> None:
    assert by_run[0.5, NEW_PLAN]["new_plan_ms"] == 11  # of 11 * (1, 0, 2)
    assert "new_plan_ms" not in by_run[0.5, ENGINE]


def test_bandwidth_share_is_bytes_over_time_over_bandwidth(by_run, make_subject) -> None:
    line = by_run[1.0, ENGINE]
    columns = 12 + 1 + 4 / 2  # prompt, latency token, half of the decode steps
    assert line["step_bytes"] == make_subject("H").bytes.step(PLANS, columns)
    assert line["bandwidth_share"] == pytest.approx(line["step_bytes"] / 2e-3 / 1e9, rel=1e-3)
    assert line["share"] == 1 and line["model"] == "7B stack H"


def test_lines_are_in_the_order_of_a_table(by_run) -> None:
    assert [*by_run] == [(1.0, ENGINE), (1.0, TRANSFORMERS), (0.5, ENGINE), (0.5, NEW_PLAN)]
