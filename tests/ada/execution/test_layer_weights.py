"""Joined weights: the projections themselves, in one memory, and what of them a plan keeps."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from ada.execution.layer_weights import copied, cut, joined, projections, runs
from ada.scheduling.execution_plan import LayerPlan, group_bounds

BLOCKS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


@pytest.fixture(params=[False, True], ids=["no bias", "bias"])
def layer(request, make_decoder):
    return make_decoder(heads=8, key_value_heads=4, bias=request.param).layers[2]


def test_joined_weights_are_the_projections_in_their_order(layer) -> None:
    expected = copy.deepcopy(layer)
    weights = joined(layer)
    parts = (expected.self_attn, expected.mlp)
    for product, block, names in zip((weights.qkv, weights.gate_up), parts, BLOCKS, strict=True):
        assert torch.equal(product.weight, torch.cat([getattr(block, name).weight for name in names]))
        if product.bias is not None:
            assert torch.equal(product.bias, torch.cat([getattr(block, name).bias for name in names]))
    for ours, theirs in zip(projections(layer), projections(expected), strict=True):
        assert torch.equal(ours.weight, theirs.weight)


def test_joining_takes_no_memory_and_sees_what_is_written_to_a_projection(layer) -> None:
    weights = joined(layer)
    with torch.no_grad():
        layer.self_attn.k_proj.weight[1, 2] = 7
    rows = layer.self_attn.q_proj.out_features
    assert weights.qkv.weight[rows + 1, 2] == 7
    assert joined(layer).qkv.weight.data_ptr() == weights.qkv.weight.data_ptr(), "joined already"


def test_joined_model_is_saved_and_moved_as_before(make_decoder, tmp_path) -> None:
    model = make_decoder()
    expected = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for one in model.layers:
        joined(one)
    model.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    assert saved.keys() == expected.keys() and all(torch.equal(saved[name], expected[name]) for name in saved)
    model.to(torch.bfloat16)
    assert joined(model.layers[0]).qkv.weight.dtype == torch.bfloat16


@given(data=st.data())
def test_cut_weights_are_the_rows_and_columns_of_kept_groups(data) -> None:
    switches, group, size = data.draw(st.sampled_from([(4, 1, 3), (3, 2, 4), (2, 4, 2), (5, 1, 2)]))
    width, neurons = switches * group * size, data.draw(st.integers(switches, 23))
    layer = Layer(width, switches * size, neurons)
    kept = st.sets(st.integers(0, switches - 1)).map(sorted).map(tuple)
    plan = LayerPlan(data.draw(kept), data.draw(kept))
    with torch.no_grad():
        weights = cut(copied(layer), plan, switches, take=None)
    for names, into, out, groups in (
        (("q_proj", "k_proj", "v_proj"), weights.qkv, weights.output, plan.heads),
        (("gate_proj", "up_proj"), weights.gate_up, weights.down, plan.neuron_groups),
    ):
        if not groups:
            assert into is None and out is None
            continue
        block = layer.self_attn if "q_proj" in names else layer.mlp
        last = block.o_proj if "q_proj" in names else block.down_proj
        rows = [
            getattr(block, name).weight[channels(getattr(block, name).out_features, switches, groups)] for name in names
        ]
        assert torch.equal(into.weight, torch.cat(rows))
        assert torch.equal(out.weight, last.weight[:, channels(last.in_features, switches, groups)])


class Layer(torch.nn.Module):
    """Seven projections, named as a decoder layer's."""

    def __init__(self, width: int, keys: int, neurons: int) -> None:
        super().__init__()
        self.self_attn, self.mlp = torch.nn.Module(), torch.nn.Module()
        sizes = {"q_proj": (8, width), "k_proj": (8, keys), "v_proj": (8, keys), "o_proj": (width, 8)}
        for name, (inputs, outputs) in sizes.items():
            setattr(self.self_attn, name, torch.nn.Linear(inputs, outputs, bias=False))
        for name, (inputs, outputs) in {
            "gate_proj": (8, neurons),
            "up_proj": (8, neurons),
            "down_proj": (neurons, 8),
        }.items():
            setattr(self.mlp, name, torch.nn.Linear(inputs, outputs, bias=False))


def channels(count: int, switches: int, kept: tuple[int, ...]) -> list[int]:
    """Slow version: the channels of kept groups, one by one; the first groups have one more."""
    sizes = [count // switches + (group < count % switches) for group in range(switches)]
    owners = [group for group, size in enumerate(sizes) for _ in range(size)]
    return [channel for channel, owner in enumerate(owners) if owner in kept]


def test_groups_and_runs() -> None:
    assert group_bounds(10, 4) == [(0, 3), (3, 6), (6, 8), (8, 10)]
    assert runs(group_bounds(10, 4), [0, 1, 3]) == [(0, 6), (8, 10)]
