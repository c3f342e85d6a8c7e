"""Grouped-query attention: the switches are key-value groups, in the scheduler, the layers and the cache."""

from __future__ import annotations

import pytest
import torch
from transformers import DynamicCache

from ada.scheduling.units import Units

PROMPT = torch.tensor([[1, -200, 60, 7, 9]])


@pytest.fixture(scope="module", params=[(8, 2, 1), (8, 4, 2), (6, 3, 1)], ids=str)
def model(request, make_llava):
    heads, groups, rank = request.param
    return make_llava("H", heads=heads, key_value_heads=groups, rank=rank, head_dim=8)


def test_sizes_follow_the_groups(model) -> None:
    groups, tunable = model.config.num_key_value_heads, 3
    assert model.units == Units("H", 5, 2, groups, model.config.scheduler_rank)
    assert model.scheduler.mlp_head.out_features == tunable * 2 * groups
    assert model.scheduler(torch.zeros(2, 64)).shape == (2, tunable, 2, groups)


@torch.no_grad()
def test_a_group_is_kept_or_dropped_with_all_its_query_heads(model, pixels) -> None:
    groups, width = model.config.num_key_value_heads, 8
    per_group = model.config.num_attention_heads // groups
    partial = 0
    for budget in (0.5, 0.65, 0.8, 0.9):
        sequence = model.embed(PROMPT, images=pixels[:1])
        begun, execution = model.begin(sequence, model.grant(budget, 1))
        cache = DynamicCache()
        model(inputs_embeds=begun.embeds, execution=execution, past_key_values=cache, use_cache=True)
        model(torch.tensor([[5]]), execution=execution, past_key_values=cache, use_cache=True)
        for index, on in enumerate(execution.plans[0].layers[2:], start=2):
            kept = len(on.heads)
            if not 0 < kept < groups:
                continue
            partial += 1
            attention = execution.action(layer := model.model.layers[index], begun.embeds).module(layer).self_attn
            shapes = [tuple(attention._modules[name].weight.shape) for name in ("q_proj", "k_proj", "v_proj", "o_proj")]
            query, key = kept * per_group * width, kept * width
            assert shapes == [(query, 64), (key, 64), (key, 64), (64, query)]
            full = model.model.layers[index].self_attn
            rows = [r for g in on.heads for r in range(g * per_group * width, (g + 1) * per_group * width)]
            assert torch.equal(attention.q_proj.weight, full.q_proj.weight[rows])
            assert torch.equal(attention.o_proj.weight, full.o_proj.weight[:, rows])
            assert cache.layers[index].keys.shape == (1, kept, begun.width + 1, width), "only what is kept is cached"
    assert partial > 0
