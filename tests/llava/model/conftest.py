"""The tiny LLaVA, opened."""

import pytest
import torch

from llava.model import LlavaLlamaForCausalLM


@pytest.fixture
def model(tiny_checkpoint):
    model = LlavaLlamaForCausalLM.from_pretrained(tiny_checkpoint).eval()
    model.get_vision_tower().load_model()
    return model


@pytest.fixture
def pixels():
    """Three images (3, 3, S, S)."""
    return torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))
