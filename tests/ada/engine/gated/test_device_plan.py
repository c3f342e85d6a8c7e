"""Plans as the kernels read them, against lists made in plain Python."""

from __future__ import annotations

import pytest
import torch
from fixtures.masked_decoder import random_plan

from ada.engine.gated.device_plan import OFF, DevicePlan
from ada.scheduling.execution_plan import ExecutionPlan, LayerPlan

LAYERS, SLOTS, SWITCHES = 3, 4, 5


@pytest.fixture
def device_plan() -> DevicePlan:
    return DevicePlan(LAYERS, SLOTS, SWITCHES, torch.device("cpu"))


def check(device_plan: DevicePlan, plans: dict[int, ExecutionPlan]) -> None:
    """The device's tensors say what ``plans`` (by slot) say."""
    device_plan.upload()
    assert device_plan.used.tolist() == [int(slot in plans) for slot in range(SLOTS)]
    for index, layer in enumerate(device_plan.layers):
        heads = sorted({head for plan in plans.values() for head in plan.layers[index].heads})
        groups = sorted({group for plan in plans.values() for group in plan.layers[index].neuron_groups})
        for listed, wanted in ((layer.heads, heads), (layer.groups, groups)):
            count, *indices = listed.tolist()
            assert indices[:count] == wanted
        for slot in range(SLOTS):
            own = plans[slot].layers[index] if slot in plans else LayerPlan((), ())
            kept_at = [own.heads.index(head) if head in own.heads else OFF for head in range(SWITCHES)]
            assert layer.kept_at[slot].tolist() == kept_at
            assert layer.on[slot].tolist() == [int(group in own.neuron_groups) for group in range(SWITCHES)]


def test_no_plan_lists_nothing(device_plan) -> None:
    check(device_plan, {})


def test_lists_follow_every_change(device_plan) -> None:
    first, second, third = (random_plan(seed, LAYERS, SWITCHES, empty=[seed]) for seed in (0, 1, 2))
    device_plan.set(0, first)
    device_plan.set(2, second)
    check(device_plan, {0: first, 2: second})
    device_plan.set(2, third)
    check(device_plan, {0: first, 2: third})
    device_plan.clear(0)
    check(device_plan, {2: third})
    device_plan.clear(2)
    check(device_plan, {})


def test_change_reaches_the_device_with_the_upload_and_keeps_the_tensors(device_plan) -> None:
    layer, address = device_plan.layers[1], device_plan.layers[1].heads.data_ptr()
    device_plan.set(0, ExecutionPlan.full(LAYERS, SWITCHES))
    assert layer.heads[0] == 0
    device_plan.upload()
    assert layer.heads.tolist() == [SWITCHES, *range(SWITCHES)]
    assert device_plan.layers[1].heads.data_ptr() == address


def test_pause_lists_nothing_until_the_next_upload(device_plan) -> None:
    plan = random_plan(3, LAYERS, SWITCHES)
    device_plan.set(1, plan)
    device_plan.upload()
    device_plan.pause()
    assert not any(layer.heads[0] or layer.groups[0] for layer in device_plan.layers)
    check(device_plan, {1: plan})


def test_heads_are_where_the_slot_holds_them(device_plan) -> None:
    plan = ExecutionPlan((LayerPlan((1, 3), ()), LayerPlan((0, 4), ()), LayerPlan((), ())), SWITCHES)
    device_plan.set(0, plan, held=[(0, 1, 2, 3, 4), (0, 4), ()])
    device_plan.upload()
    assert [layer.kept_at[0].tolist() for layer in device_plan.layers] == [
        [OFF, 1, OFF, 3, OFF],
        [0, OFF, OFF, OFF, 1],
        [OFF] * 5,
    ]


@pytest.mark.parametrize("plan", [ExecutionPlan.full(LAYERS + 1, SWITCHES), ExecutionPlan.full(LAYERS, SWITCHES - 1)])
def test_plan_of_another_decoder_is_refused_with_both_sizes(device_plan, plan) -> None:
    with pytest.raises(ValueError, match=f"{len(plan.layers)} layers of {plan.num_switches}.*3 layers of 5"):
        device_plan.set(0, plan)
