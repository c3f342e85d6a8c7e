import pytest

from ada.bench import models
from llava.model.builder import load_pretrained_model

SMALL = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "vocab_size": 50,
    "max_position_embeddings": 128,
}


@pytest.fixture
def model(adaptive_checkpoint):
    return load_pretrained_model(str(adaptive_checkpoint), None, "tiny", device="cpu")[1]


@pytest.fixture
def small_shapes(monkeypatch) -> None:
    """Stacks of tiny layers in place of those with 7B shapes."""
    monkeypatch.setattr(models, "SHAPES_7B", SMALL)
