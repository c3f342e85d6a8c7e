"""Which projector a config names."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from llava.errors import CheckpointError
from llava.model.multimodal_projector.builder import build_vision_projector


def projector(kind=None, **more):
    named = {} if kind is None else {"mm_projector_type": kind}
    return build_vision_projector(SimpleNamespace(mm_hidden_size=3, hidden_size=5, **named, **more), delay_load=True)


def test_build_vision_projector_of_each_type_has_its_layers():
    assert isinstance(projector(), nn.Linear)
    assert isinstance(projector("linear"), nn.Linear)
    assert isinstance(projector("identity"), nn.Identity)
    for depth in (1, 2, 3):
        layers = projector(f"mlp{depth}x_gelu")
        assert [type(layer) for layer in layers] == ([nn.Linear, nn.GELU] * depth)[:-1]
        assert set(layers.state_dict()) == {f"{2 * n}.{part}" for n in range(depth) for part in ("weight", "bias")}
        assert layers(torch.zeros(2, 4, 3)).shape == (2, 4, 5)


@pytest.mark.parametrize("kind", ["mlp", "mlp0x_gelu", "mlp2x_relu", "mlpx_gelu", "LINEAR"])
def test_build_vision_projector_of_unknown_type_raises(kind):
    with pytest.raises(CheckpointError, match=kind):
        projector(kind)
