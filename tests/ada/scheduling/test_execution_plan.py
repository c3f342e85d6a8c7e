"""The plan as data and as images."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ada.scheduling.execution_plan import ExecutionPlan, LayerPlan
from ada.scheduling.plan_plot import OFF, ON, blocks, figure
from llava.errors import OptionError

PLAN = ExecutionPlan(
    (LayerPlan((0, 1, 2, 3), (0, 1, 2, 3)), LayerPlan((1,), (0, 3)), LayerPlan((), ()), LayerPlan((), (2,))), 4
)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 5), st.integers(1, 9), st.integers(0, 10_000))
def test_json_and_gates_round_trip(layers: int, switches: int, seed: int) -> None:
    gates = (torch.rand(layers, 2, switches, generator=torch.Generator().manual_seed(seed)) < 0.5).float()
    plan = ExecutionPlan.from_gates(gates)
    assert torch.equal(plan.gates(), gates)
    for data in (plan.to_json(), json.dumps(plan.to_json()), plan.to_short_json(), json.dumps(plan.to_short_json())):
        assert ExecutionPlan.from_json(data) == plan and hash(ExecutionPlan.from_json(data)) == hash(plan)
    assert plan.share == pytest.approx(gates.mean().item())
    assert plan.layers_run == sum(bool(gate.any()) for gate in gates)


def test_short_json_by_hand() -> None:
    assert PLAN.to_short_json() == {"num_switches": 4, "heads": "f 2 0 0", "neuron_groups": "f 9 0 4"}
    for spoilt in ({"heads": "f 2 0"}, {"heads": "f 2 0 10"}, {"heads": "f x 0 0"}, {"heads": [15, 2, 0, 0]}):
        with pytest.raises(OptionError, match="not an execution plan"):
            ExecutionPlan.from_json({**PLAN.to_short_json(), **spoilt})


def test_counts() -> None:
    assert (PLAN.layers_run, PLAN.heads_run, PLAN.neuron_groups_run) == (3, 5, 7)
    assert PLAN.share == 12 / 32
    assert PLAN.neurons_run(10) == 10 + (3 + 2) + 0 + 2, "groups of 3, 3, 2 and 2 neurons"
    assert [PLAN.is_full(i) for i in range(4)] == [True, False, False, False]
    assert PLAN.with_dense([1, 2, 3]) == ExecutionPlan.full(4, 4) and PLAN.with_dense([]) == PLAN


@pytest.mark.parametrize(
    "data",
    [
        "not json",
        "[]",
        "{}",
        {"num_switches": 2, "layers": 3},
        {"num_switches": 2, "layers": [{"heads": [0]}]},
        {"num_switches": 2, "layers": [{"heads": [2], "neuron_groups": []}]},
        {"num_switches": 2, "layers": [{"heads": [0, 0], "neuron_groups": []}]},
        {"num_switches": 2, "layers": [{"heads": [-1], "neuron_groups": []}]},
        {"num_switches": "many", "layers": []},
        {"num_switches": 2, "layers": [{"heads": [0.5], "neuron_groups": []}]},
    ],
    ids=str,
)
def test_what_is_no_plan_is_refused(data) -> None:
    with pytest.raises(OptionError, match="not an execution plan"):
        ExecutionPlan.from_json(data)


def test_blocks_for_the_terminal() -> None:
    lines = blocks(PLAN).splitlines()
    assert lines[0].split() == ["layer", "heads", "neuron", "groups"]
    assert [line.split() for line in lines[1:]] == [
        ["1", ON * 4, ON * 4],
        ["2", f"{OFF}{ON}{OFF}{OFF}", f"{ON}{OFF}{OFF}{ON}"],
        ["3", OFF * 4, OFF * 4],
        ["4", OFF * 4, f"{OFF}{OFF}{ON}{OFF}"],
    ]
    column = lines[0].index("neuron")
    assert all(line[column] in ON + OFF and line[column - 1] == " " for line in lines[1:]), "columns stand in line"


def test_the_image_shows_each_switch_in_its_place(tmp_path) -> None:
    path = tmp_path / "plan.png"
    figure(PLAN, "a title").savefig(path, dpi=150)
    pixels = Image.open(path).convert("RGB")
    dark, pale = (43, 95, 179), (232, 232, 238)
    width, height = pixels.size
    cells = [(x, y) for y in range(height) for x in range(width) if pixels.getpixel((x, y)) in (dark, pale)]
    left, right = min(x for x, _ in cells), max(x for x, _ in cells)
    top, bottom = min(y for _, y in cells), max(y for _, y in cells)
    row = [pixels.getpixel((x, (top * 7 + bottom) // 8)) in (dark, pale) for x in range(left, right + 1)]
    gap = max(range(len(row)), key=lambda i: next((n for n in range(len(row) - i) if row[i + n]), 0))
    length = next(n for n in range(len(row) - gap) if row[gap + n])
    panels = ((left, left + gap - 1), (left + gap + length, right))
    for component, (start, end) in enumerate(panels):
        for layer in range(4):
            for switch in range(4):
                x = start + (end - start) * (2 * switch + 1) // 8
                y = top + (bottom - top) * (2 * layer + 1) // 8
                assert pixels.getpixel((x, y)) == (dark if PLAN.gates()[layer, component, switch] else pale)
