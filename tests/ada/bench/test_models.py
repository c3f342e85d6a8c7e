"""The stacks that are timed: one set of weights, in the layout that the engine reads."""

import torch

from ada.bench.models import Models


def test_views_share_the_plain_models_weights_joined_before(small_shapes) -> None:
    models = Models.make(4)
    before = {name: parameter.data_ptr() for name, parameter in models.plain.named_parameters()}
    for model in models.ada.values():
        weights = model.narrow_cache.dense(1, model.model.layers[1])
        assert weights.qkv.weight.data_ptr() == before["model.layers.1.self_attn.q_proj.weight"]
        assert weights.gate_up.weight.data_ptr() == before["model.layers.1.mlp.gate_proj.weight"]
        assert {name: p.data_ptr() for name, p in model.named_parameters() if name in before} == before


def test_sizes_and_dtype_are_as_asked(small_shapes) -> None:
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 8, "num_key_value_heads": 8}
    model = Models.make(2, dtype=torch.float32, sizes={**sizes, "vocab_size": 20}).ada["H"]
    assert model.dtype == torch.float32 and model.config.hidden_size == 32 and model.config.num_hidden_layers == 2
