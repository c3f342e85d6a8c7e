"""The operations that a plan is said to cost against those that torch counts while it runs."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import DynamicCache

from ada.cost.flops import decoder_flops
from ada.execution import Execution
from ada.maskable_layer import install
from ada.narrow import NarrowCache
from ada.planners import PLANNERS
from ada.units import Units


def attention_on_cpu(query, key, value, *_, out_shape=None, **__) -> int:
    """The fused CPU kernel, which torch's counter does not know: two products of every query with every key."""
    batch, heads, queries, width = query
    return 2 * 2 * batch * heads * queries * key[2] * width


UNKNOWN_TO_TORCH = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention_on_cpu}


@pytest.mark.parametrize("kind", ["H", "L"])
@pytest.mark.parametrize("key_value_heads", [8, 2])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_stated_operations_are_counted_ones(make_decoder, kind, key_value_heads, attention) -> None:
    model = make_decoder(layers=6, heads=8, key_value_heads=key_value_heads, mlp=90, attention=attention)
    install(model.layers)
    grid = Units(kind, 6, 3, key_value_heads, 1)
    torch.manual_seed(0)
    for granted in range(0, grid.tunable + 1, max(1, grid.tunable // 4)):
        gates = PLANNERS["random"](grid, torch.tensor([granted]), None)
        run = Execution(grid, lambda _, gates=gates: gates, None, NarrowCache(1 << 20))
        cache = DynamicCache()
        with FlopCounterMode(display=False, custom_mapping=UNKNOWN_TO_TORCH) as prefill:
            model(inputs_embeds=torch.randn(1, 40, 32), past_key_values=cache, use_cache=True, execution=run)
        with FlopCounterMode(display=False, custom_mapping=UNKNOWN_TO_TORCH) as decode:
            model(inputs_embeds=torch.randn(1, 1, 32), past_key_values=cache, use_cache=True, execution=run)
        (plan,) = run.finish(1)
        for counted, queries, keys in ((prefill, 40, 40), (decode, 1, 41)):
            stated = decoder_flops(model.config, grid, plan, queries, keys)
            assert stated["prefix"] + stated["tunable"] == pytest.approx(counted.get_total_flops(), rel=0.01)
