"""Goals of the engine: which figure is compared with which maximum."""

import pytest

from ada.bench.decode.goals import Goal, decode_goals, gpu_goals
from ada.bench.decode.rounds import NEW_PLAN
from ada.bench.decode.ways import ENGINE, TRANSFORMERS


def line(model: str, budget: float = 1.0, **fields):
    """One line of the figures."""
    figures = {"token_ms": 6.0, "token_over_full": 0.6, "token_over_transformers": 0.55}
    figures |= {"first_over_full": 0.61, "first_over_transformers": 0.66, "share": budget}
    return {"model": model, "way": ENGINE, "budget": budget, "positions": 60, "rows": 1, **figures, **fields}


def maxima(goals: list[Goal]) -> list[tuple[float, bool | None]]:
    return [(goal.maximum, goal.met) for goal in goals]


def test_full_bundled_model_is_compared_with_transformers() -> None:
    assert maxima(decode_goals([line("bundled H")])) == [(0.60, True), (0.65, False)]
    assert maxima(decode_goals([line("bundled H", positions=640)])) == [(0.60, True)], "prefill: at 60 positions alone"


@pytest.mark.parametrize(("model", "maximum", "met"), [("bundled L", 0.58, False), ("7B stack L", 0.54, False)])
def test_plan_may_take_its_share_and_a_margin(model, maximum, met) -> None:
    assert maxima(decode_goals([line(model, 0.5)])) == [(maximum, met)]
    assert maxima(decode_goals([line(model, 0.5, share=0.7)])) == [(round(maximum + 0.2, 4), True)]


def test_other_ways_several_rows_and_the_full_stack_have_no_goal() -> None:
    others = [line("bundled H", way=TRANSFORMERS), line("bundled H", rows=4), line("7B stack H")]
    assert decode_goals(others) == []


def test_gpu_goals_are_those_of_each_kind_and_budget() -> None:
    lines = [line(f"7B stack {kind}", budget) for kind in "HL" for budget in (1.0, 0.75, 0.5)]
    lines.append(line("7B stack H", 0.5, way=NEW_PLAN, new_plan_ms=5.5))
    lines.append(line("7B stack H", rows=8))
    goals = gpu_goals(lines)
    tokens = [(6.3, True), (0.82, True), (0.62, True), (0.62, True)]
    assert maxima(goals[:4]) == tokens
    assert maxima(goals[4:8]) == [(6.3, True), (0.79, True), (0.58, False), (0.62, True)]
    assert maxima(goals[8:]) == [(5.0, False)]


def test_goal_without_a_figure_is_neither_met_nor_missed() -> None:
    assert Goal("x", 1.0, None).met is None
    assert Goal("x", 1.0, 1.0).to_json() == {"goal": "x", "maximum": 1.0, "measured": 1.0, "met": True}


def test_of_smol_half_a_plan_over_a_full_one_from_150_positions_up():
    half = line("smol H", 0.5, positions=200, first_over_full=0.7, token_over_full=0.6)
    assert maxima(decode_goals([half])) == [(0.65, False), (0.65, True)]
    others = [half | {"positions": 60}, half | {"budget": 0.75}, half | {"budget": 1.0}]
    assert decode_goals(others) == []
