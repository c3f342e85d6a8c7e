"""8-bit weights under plans: cut as they were quantised, and decoded by the engine."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ada.execution.layer_weights import can_cut, copied, cut, joined, projections
from ada.execution.narrow_cache import NarrowCache
from ada.execution.weight_pool import WeightPool
from ada.scheduling.execution_plan import LayerPlan
from llava.errors import OptionError
from llava.model import int8_linear
from llava.model.int8_linear import Int8Linear, int8_weights, quantise_int8

PROMPT = torch.tensor([[1, 17, -200, 60, 7, 33, 21, 8, 9, 44, 51, 12, 71, 63, 5, 6, 19]])
SETTINGS = {"max_new_tokens": 6, "do_sample": False, "return_dict_in_generate": True, "output_logits": True}


def in_8_bits(model: nn.Module) -> nn.Module:
    model = copy.deepcopy(model)
    quantise_int8(model, (*model.never_quantised, "model.vision_tower"))
    return model


def in_rounded_floats(model: nn.Module) -> nn.Module:
    """The model with plain float layers of what 8 bits stand for."""
    model = copy.deepcopy(model)
    for layer in getattr(model, "model", model).layers:
        for linear in projections(layer):
            steps, scale = int8_weights(linear.weight.data)
            linear.weight.data = steps.float() * scale.float()[:, None]
    return model


@pytest.fixture
def exactly(monkeypatch) -> None:
    """Every product dequantised: none rounds its inputs to bfloat16."""
    monkeypatch.setattr(int8_linear, "FEW_POSITIONS", 0)


def asked(model: nn.Module, pixels: torch.Tensor, budget: float, **more):
    return model.generate(PROMPT, images=pixels[:1], latency_budget=budget, **SETTINGS, **more)


def values(product) -> torch.Tensor:
    """What a product's weight (out, in) stands for."""
    return product.weight if product.scale is None else product.weight.float() * product.scale.float()[:, None]


@settings(max_examples=60)
@given(data=st.data())
def test_cut_is_quantised_then_indexed(data, make_decoder) -> None:
    """Rows take their scales and biases along, columns leave them; what is padded are zeros."""
    mlp, bias = data.draw(st.sampled_from([48, 45, 101])), data.draw(st.booleans())
    decoder = make_decoder(layers=1, heads=8, key_value_heads=4, mlp=mlp, bias=bias)
    floats = in_rounded_floats(decoder)
    quantise_int8(decoder)
    kept = st.sets(st.integers(0, 3), min_size=1, max_size=3).map(sorted).map(tuple)
    plan = LayerPlan(data.draw(kept), data.draw(kept))
    take = data.draw(st.sampled_from([None, WeightPool(1 << 30).take]))
    ours, expected = (cut(joined(one.layers[0]), plan, 4, take) for one in (decoder, floats))
    assert torch.equal(values(ours.qkv), expected.qkv.weight)
    assert torch.equal(values(ours.output), expected.output.weight)
    neurons = expected.down.weight.shape[1]
    parts = values(ours.gate_up).unflatten(0, (2, -1))
    assert torch.equal(parts[:, :neurons].flatten(0, 1), expected.gate_up.weight) and not parts[:, neurons:].any()
    columns = values(ours.down)
    assert torch.equal(columns[:, :neurons], expected.down.weight) and not columns[:, neurons:].any()
    assert columns.shape[1] == parts.shape[1] and columns.shape[1] - neurons == -neurons % 16
    x = torch.randn(20, 32)
    gate, up = ours.gate_up(x).unflatten(1, (2, -1)).unbind(1)
    theirs = expected.gate_up(x).unflatten(1, (2, -1)).prod(dim=1)
    torch.testing.assert_close(ours.down(gate * up), expected.down(theirs), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.qkv(x), expected.qkv(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["H", "L"])
@pytest.mark.parametrize("engine", ["ada", "transformers"])
def test_answers_under_plans_are_those_of_the_rounded_weights(make_llava, pixels, exactly, kind, engine) -> None:
    model = make_llava(kind)
    ours, floats = in_8_bits(model), in_rounded_floats(model)
    for budget in (0.01, 0.6, 0.8, 1.0):
        found, expected = (asked(one, pixels, budget, engine=engine) for one in (ours, floats))
        assert found.execution_plan == expected.execution_plan and torch.equal(found.sequences, expected.sequences)
        torch.testing.assert_close(torch.stack(found.logits), torch.stack(expected.logits), atol=1e-3, rtol=1e-3)
        assert found.report.masked_layers == 0 and found.report.prefill_flops == expected.report.prefill_flops


def test_cut_answers_as_masked_and_near_the_float_model(make_llava, pixels, exactly) -> None:
    """The same plan in 8 bits, its layers cut and masked, and in the checkpoint's own weights."""
    model = make_llava("H")
    ours = in_8_bits(model)
    narrow = asked(ours, pixels, 0.7)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ada.execution.call_state.can_cut", lambda _: False)
        masked = asked(ours, pixels, 0.7)
    assert masked.report.masked_layers > 0 == narrow.report.masked_layers
    torch.testing.assert_close(torch.stack(narrow.logits), torch.stack(masked.logits), atol=1e-3, rtol=1e-3)
    exact = asked(model, pixels, 0.7)
    if exact.execution_plan == narrow.execution_plan:
        off = (narrow.logits[0] - exact.logits[0]).norm() / exact.logits[0].norm()
        assert 0 < off < 0.05


def test_decoding_rounds_inputs_to_bfloat16_and_no_more(make_llava, pixels) -> None:
    """Under torch's kernel for int8 weights."""
    model = make_llava("H")
    found, expected = asked(in_8_bits(model), pixels, 0.7), asked(in_rounded_floats(model), pixels, 0.7)
    assert found.execution_plan == expected.execution_plan
    off = (found.logits[1] - expected.logits[1]).norm() / expected.logits[1].norm()
    assert 0 < off < 0.02


def test_rows_with_own_plans_answer_as_alone(make_llava, pixels, exactly) -> None:
    ours = in_8_bits(make_llava("H"))
    prompts = {"images": pixels[:1].repeat(3, 1, 1, 1), **SETTINGS}
    batch = ours.generate(PROMPT.repeat(3, 1), latency_budget=[0.5, 0.7, 1.0], **prompts)
    for row, budget in enumerate((0.5, 0.7, 1.0)):
        alone = asked(ours, pixels, budget)
        logits = torch.stack([step[row] for step in batch.logits])
        torch.testing.assert_close(logits, torch.stack(alone.logits)[:, 0], atol=1e-3, rtol=1e-3)


def test_8_bit_layers_are_cut_once_and_take_a_quarter_of_float32(make_decoder) -> None:
    decoder = make_decoder(mlp=48)
    floats = NarrowCache(1 << 30)
    with torch.no_grad():
        floats.get(3, decoder.layers[3], LayerPlan((0, 1), (1, 2)), 4)
    quantise_int8(decoder)
    layer, cache = decoder.layers[3], NarrowCache(1 << 30)
    assert can_cut(layer)
    first = cache.get(3, layer, LayerPlan((0, 1), (1, 2)), 4)
    assert cache.get(3, layer, LayerPlan((0, 1), (1, 2)), 4) is first
    # 24 neurons of 48 are padded to 32: 8 rows of 32 in gate, up and down each
    assert cache.bytes == floats.bytes // 4 + 3 * 8 * 32


def test_mixed_layers_are_not_cut_and_gradients_are_refused(make_decoder) -> None:
    layer = make_decoder().layers[0]
    quantise_int8(layer.self_attn)
    assert not can_cut(layer)
    quantise_int8(layer)
    with pytest.raises(OptionError, match="not trained"):
        copied(layer)


def test_a_call_with_gradients_cuts_in_8_bits_and_passes_them_to_the_input(make_llava, pixels) -> None:
    """Norms and embeddings may learn next to weights that do not."""
    ours = in_8_bits(make_llava("H"))
    out = ours(PROMPT, images=pixels[:1], latency_budget=0.7)
    assert out.report.masked_layers == 0
    out.logits.sum().backward()
    assert ours.model.norm.weight.grad.abs().sum() > 0 and ours.model.embed_tokens.weight.grad.abs().sum() > 0
    linears = [one for layer in ours.model.layers for one in projections(layer)]
    assert all(isinstance(one, Int8Linear) and one.weight.grad is None for one in linears)
