"""The bytes that a decode step must read, against tensors of that size."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from ada.bench.decode.step_bytes import DecoderBytes, any_of
from ada.execution.layer_weights import cut, joined
from ada.scheduling.execution_plan import ExecutionPlan, LayerPlan

KEPT = LayerPlan((0, 2), (1, 3))
HALF = ExecutionPlan((LayerPlan((0, 1, 2, 3), (0, 1, 2, 3)), KEPT, LayerPlan((), ())), 4)
FULL = ExecutionPlan.full(3, 4)


@pytest.fixture(scope="module", params=[4, 8], ids=["a query head a group", "grouped queries"])
def model(request):
    config = LlamaConfig(
        hidden_size=32, intermediate_size=50, num_attention_heads=request.param, num_key_value_heads=4, vocab_size=40,
        num_hidden_layers=3, head_dim=8,
    )  # fmt: skip
    return LlamaForCausalLM(config).to(torch.bfloat16)


def test_full_weights_are_the_projections_and_the_output_layer(model) -> None:
    parts = [parameter.nbytes for name, parameter in model.named_parameters() if "proj" in name or "lm_head" in name]
    assert DecoderBytes.of(model).weights([FULL]) == sum(parts)


def test_weights_of_a_plan_are_those_of_its_narrow_layers(model) -> None:
    dense, head = [joined(layer) for layer in model.model.layers], model.lm_head.weight
    narrow = cut(dense[1], KEPT, 4, take=None)
    parts = [part.weight for layer in (dense[0], narrow) for part in vars(layer).values() if part is not None]
    assert DecoderBytes.of(model).weights([HALF]) == sum(part.nbytes for part in [*parts, head])


def test_rows_share_the_weights_that_both_keep(model) -> None:
    sizes = DecoderBytes.of(model)
    other = ExecutionPlan((*HALF.layers[:2], LayerPlan((1,), ())), 4)
    assert sizes.weights([HALF, HALF]) == sizes.weights([HALF])
    assert sizes.weights([HALF, other]) == sizes.weights([other])
    assert sizes.weights([HALF, FULL]) == sizes.weights([FULL])


def test_any_of_is_the_union() -> None:
    assert any_of([LayerPlan((0, 3), ()), LayerPlan((2, 3), (1,))]) == LayerPlan((0, 2, 3), (1,))


def test_cache_is_keys_and_values_of_each_rows_kept_heads(model) -> None:
    sizes, head_dim = DecoderBytes.of(model), 8
    assert sizes.cache([FULL], 10) == 3 * 2 * torch.zeros(4, 10, head_dim, dtype=torch.bfloat16).nbytes
    assert sizes.cache([FULL, HALF], 10) == sizes.cache([FULL], 10) * (12 + 6) / 12
    assert sizes.step([HALF], 10) == sizes.weights([HALF]) + sizes.cache([HALF], 10)
