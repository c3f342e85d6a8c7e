"""Small decoders with random weights, plain and adaptive."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from transformers import LlamaConfig, LlamaModel

MakeDecoder = Callable[..., LlamaModel]


@pytest.fixture(scope="session")
def make_decoder() -> MakeDecoder:
    """``make_decoder(heads=4, key_value_heads=4, ...)``: a Llama decoder stack, float32 by default."""

    def make(
        layers: int = 4,
        heads: int = 4,
        key_value_heads: int = 4,
        mlp: int = 45,
        attention: str = "eager",
        bias: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> LlamaModel:
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=64,
            hidden_size=32,
            intermediate_size=mlp,  # not a multiple of the heads: some neuron groups are longer
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=key_value_heads,
            attention_bias=bias,
            mlp_bias=bias,
            initializer_range=0.2,
            attn_implementation=attention,
        )
        model = LlamaModel(config).to(dtype).eval()
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(parameter, std=0.3)
        return model

    return make
