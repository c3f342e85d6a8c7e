"""Drawings of execution plans, read back from the SVG."""

import re
import xml.etree.ElementTree as ET

import pytest

from ada.scheduling.execution_plan import ExecutionPlan, LayerPlan
from ada.serve.demo.plan_drawing import GAP, MAX_PX, MIN_PX, plan_drawing, undecided_drawing


def cells(drawn: str, kind: str) -> set[tuple[int, str, int]]:
    """(layer, "head" or "group", index) of the switches drawn as ``kind``, of 3 a layer."""
    svg = ET.fromstring(re.search("<svg.*?</svg>", drawn, re.DOTALL)[0])
    found = set()
    for path in svg.iter("path"):
        if path.get("class") == kind:
            for x, y in re.findall(r"M([\d.]+) ([\d.]+)h", path.get("d")):
                column, layer = float(x) - 0.05, int(float(y))
                group = column >= 3
                found.add((layer, "group" if group else "head", round(column - (3 + GAP) * group)))
    return found


def test_drawing_colours_what_runs_and_greys_the_rest() -> None:
    plan = ExecutionPlan((LayerPlan((0, 1, 2), (0, 1, 2)), LayerPlan((1,), (0, 2)), LayerPlan((), ())), 3)
    every = {(layer, kind, index) for layer in range(3) for kind in ("head", "group") for index in range(3)}
    runs = {one for one in every if one[0] == 0} | {(1, "head", 1), (1, "group", 0), (1, "group", 2)}
    drawn = plan_drawing(plan)
    assert cells(drawn, "on") == runs and cells(drawn, "off") == every - runs
    assert "2 of 3 layers run, 4 heads and 5 neuron groups in all" in drawn


def test_drawing_before_the_plan_shows_the_prefix_and_what_is_not_decided() -> None:
    drawn = undecided_drawing({"layers": 4, "prefix_layers": 1, "switches": 3})
    assert {layer for layer, _, _ in cells(drawn, "on")} == {0} and len(cells(drawn, "on")) == 6
    assert drawn.count("class='undecided'") == 3 and "1 of 4 layers run in any case" in drawn


def test_drawing_has_the_same_elements_before_and_after_the_plan() -> None:
    """So that the page changes them, and a layer grows out of what was not decided."""
    before = undecided_drawing({"layers": 3, "prefix_layers": 1, "switches": 3})
    after = plan_drawing(ExecutionPlan.full(3, 3))
    assert before.count("<g ") == after.count("<g ") == 3
    assert re.search("viewBox='.*?'", before)[0] == re.search("viewBox='.*?'", after)[0]


@pytest.mark.parametrize(("layers", "height"), [(2, MIN_PX), (20, 200), (80, MAX_PX)])
def test_drawing_of_many_layers_stays_small(layers, height) -> None:
    assert f"height: {height}px" in plan_drawing(ExecutionPlan.full(layers, 3))


def test_drawing_names_no_colour_that_dark_pages_cannot_change() -> None:
    assert not re.search(r"(fill|stroke)='#", plan_drawing(ExecutionPlan.full(3, 3)))
