"""Gathered weights of a layer, against Llama's own modules with the weights that are off taken out one by one."""

from __future__ import annotations

import pytest
import torch
from fixtures.gated_checks import ByteLinear
from fixtures.masked_decoder import make_decoder, random_plan

from ada.engine.gated.gather import KeptChannels, PromptWeights, gather_layer
from ada.engine.gated.shapes import DecoderShapes
from ada.scheduling.execution_plan import ExecutionPlan, LayerPlan, group_bounds

BLOCKS = {"qkv": ("q_proj", "k_proj", "v_proj"), "gate_up": ("gate_proj", "up_proj")}


def kept_channels(groups: tuple[int, ...], width: int, switches: int) -> list[int]:
    bounds = group_bounds(width, switches)
    return [channel for channel in range(width) if any(bounds[g][0] <= channel < bounds[g][1] for g in groups)]


def gathered(model, plan: ExecutionPlan):
    """What is gathered of each layer."""
    kept = KeptChannels.of(plan, DecoderShapes.of(model.config), torch.device("cpu"))
    return [gather_layer(layer, own) for layer, own in zip(model.model.layers, kept, strict=True)]


@pytest.mark.parametrize(("kv_heads", "family"), [(4, "llama"), (2, "llama"), (2, "qwen2")])
def test_gathered_weights_are_those_that_the_plan_keeps(kv_heads, family) -> None:
    model = make_decoder(kv_heads=kv_heads, family=family)
    plan = random_plan(0, switches=kv_heads, share=0.6)
    assert all(layer.heads and layer.neuron_groups for layer in plan.layers)
    for layer, own, found in zip(model.model.layers, plan.layers, gathered(model, plan), strict=True):
        for block, kept, joined, columns in (
            (layer.self_attn, own.heads, found.qkv, found.output),
            (layer.mlp, own.neuron_groups, found.gate_up, found.down),
        ):
            names = BLOCKS["qkv" if block is layer.self_attn else "gate_up"]
            linears = [getattr(block, name) for name in names]
            wanted = [x.weight[kept_channels(kept, x.out_features, kv_heads)] for x in linears]
            assert torch.equal(joined.weight, torch.cat(wanted))
            if linears[0].bias is None:
                assert joined.bias is None
            else:
                biases = [x.bias[kept_channels(kept, x.out_features, kv_heads)] for x in linears]
                assert torch.equal(joined.bias, torch.cat(biases))
            out = block.o_proj if block is layer.self_attn else block.down_proj
            assert torch.equal(columns.weight, out.weight[:, kept_channels(kept, out.in_features, kv_heads)])


def test_block_of_which_nothing_runs_is_none() -> None:
    layers = (LayerPlan((1,), ()), LayerPlan((), (2, 3)), LayerPlan((), ()))
    found = gathered(make_decoder(), ExecutionPlan(layers, 4))
    assert [[part is None for part in (x.qkv, x.output, x.gate_up, x.down)] for x in found] == [
        [False, False, True, True],
        [True, True, False, False],
        [True] * 4,
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_bytes_are_gathered_as_what_they_stand_for(dtype) -> None:
    model = make_decoder().to(dtype)
    mlp, plan = model.model.layers[1].mlp, random_plan(7)
    mlp.gate_proj, mlp.down_proj = ByteLinear(mlp.gate_proj), ByteLinear(mlp.down_proj)
    mlp.up_proj = ByteLinear(mlp.up_proj)
    found = gathered(model, plan)[1]
    kept = kept_channels(plan.layers[1].neuron_groups, 45, 4)
    gate, up, down = (
        x.weight.to(dtype).mul(x.scale[:, None]).to(dtype) for x in (mlp.gate_proj, mlp.up_proj, mlp.down_proj)
    )
    assert torch.equal(found.gate_up.weight, torch.cat([gate[kept], up[kept]]))
    assert torch.equal(found.down.weight, down[:, kept])


def test_prompts_weights_are_those_of_its_plan() -> None:
    model, plan = make_decoder(), random_plan(3)
    weights = PromptWeights(model)
    for index, expected in enumerate(gathered(model, plan)):
        found = weights(plan, index)
        assert torch.equal(found.qkv.weight, expected.qkv.weight) and torch.equal(
            found.down.weight, expected.down.weight
        )
