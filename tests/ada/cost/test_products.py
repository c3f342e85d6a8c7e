"""The products of each part, by hand and against formulas written down the other way round."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ada.cost.flops import decoder_flops, prefill_flops
from ada.cost.plans import even_plan
from ada.cost.products import Product, linear
from ada.cost.sizes import sizes_of

SIZES = {kind: sizes_of("llama-7b", kind) for kind in "HL"}


def test_linear_counts_operations_and_elements():
    assert linear(2, 3, 5) == Product(flops=2 * 2 * 3 * 5, elements=3 * 5 + 2 * (3 + 5))
    assert linear(2, 3, 5).bytes == 2 * (15 + 16)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from("HL"), st.floats(0, 1), st.integers(1, 40), st.integers(1, 900))
def test_decoder_flops_agree_with_a_formula(kind, share, queries, keys):
    units = SIZES[kind].units
    plan = even_plan(units, int(share * units.tunable))
    heads, neurons = plan.heads_run, plan.neurons_run(11008)
    projections = 2 * queries * 4096 * (4 * heads * 128 + 3 * neurons)
    attention = 2 * 2 * queries * keys * heads * 128
    flops = decoder_flops(SIZES[kind].config, units, plan, queries, keys, scored=3)
    assert flops["prefix"] + flops["tunable"] == projections + attention
    assert flops["lm_head"] == 2 * 3 * 4096 * 32000


@pytest.mark.parametrize("kind", "HL")
def test_prefill_flops_of_vision_and_scheduler_agree_with_a_formula(kind):
    sizes = SIZES[kind]
    flops = prefill_flops(
        sizes.config,
        sizes.units,
        even_plan(sizes.units, 0),
        640,
        num_images=2,
        vision=sizes.vision,
        vision_layers=23,
        projector=torch.nn.Sequential(torch.nn.Linear(1024, 4096), torch.nn.GELU(), torch.nn.Linear(4096, 4096)),
        image_tokens=2 * 576,
    )
    layer = 577 * 1024 * (8 * 1024 + 4 * 4096) + 4 * 577**2 * 1024
    assert flops["vision_tower"] == 2 * (2 * 576 * 1024 * 3 * 14**2 + 23 * layer)
    assert flops["projector"] == 2 * 2 * 576 * (1024 * 4096 + 4096 * 4096)
    scores = 16 * (1 if kind == "L" else 64)
    assert flops["scheduler"] == 2 * 4096 * (256 + 4096 + scores)
