import pytest

from llava.model.builder import load_pretrained_model


@pytest.fixture
def model(adaptive_checkpoint):
    return load_pretrained_model(str(adaptive_checkpoint), None, "tiny", device="cpu")[1]
