"""Estimates: their operations are the report's, and they grow with the budget."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ada.cost.estimate import estimate
from ada.cost.flops import decode_flops, prefill_flops
from ada.cost.hardware import HARDWARE
from ada.cost.plans import plan_of_budget
from ada.cost.sizes import sizes_of

SIZES = {(name, kind): sizes_of(name, kind) for name in ("llama-7b", "llama-13b") for kind in "HL"}
BUDGETS = st.integers(50, 100).map(lambda percent: f"{percent}%")


def plan_for(sizes, budget):
    return plan_of_budget(sizes.units, budget, None)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(sorted(SIZES)), BUDGETS, st.integers(1, 1500), st.integers(1, 6), st.sampled_from(sorted(HARDWARE))
)
def test_operations_are_those_of_the_report(key, budget, prompt, gen, device):
    sizes = SIZES[key]
    plan = plan_for(sizes, budget)
    found = estimate(sizes, plan, HARDWARE[device], prompt, gen)
    expected = prefill_flops(
        sizes.config,
        sizes.units,
        plan,
        prompt,
        num_images=1,
        vision=sizes.vision,
        vision_layers=sizes.vision_layers,
        projector=sizes.projector,
        image_tokens=sizes.image_tokens,
    )
    assert {part: cost.flops for part, cost in found.prefill.items()} == expected
    if gen > 1:
        means = [decode_flops(sizes.config, sizes.units, plan, prompt + step) for step in range(1, gen)]
        for part, cost in found.decode.items():
            assert cost.flops == sum(step[part] for step in means) / len(means)
    arithmetic = sum(expected.values()) / HARDWARE[device].flops
    traffic = sum(cost.bytes for cost in found.prefill.values()) / HARDWARE[device].bandwidth
    assert max(arithmetic, traffic) * (1 - 1e-9) <= found.first_token_s <= arithmetic + traffic


@pytest.mark.parametrize("kind", "HL")
def test_a_smaller_budget_never_costs_more(kind):
    sizes, device = SIZES["llama-7b", kind], HARDWARE["A100-80G"]
    rows = [estimate(sizes, plan_for(sizes, str(b / 100)), device, 640, 3) for b in range(50, 101, 2)]
    for less, more in itertools.pairwise(rows):
        assert less.first_token_s <= more.first_token_s and less.token_s <= more.token_s
        assert less.memory["kv_cache"] <= more.memory["kv_cache"]
    full = rows[-1]
    assert full.memory["narrow_layers"] == 0
    assert full.memory["decoder"] == 2 * (6_738_415_616 - 266_240), "the 7B's parameters, but its norms, in bfloat16"
    assert full.memory["kv_cache"] == 2 * 2 * 32 * 4096 * 642
