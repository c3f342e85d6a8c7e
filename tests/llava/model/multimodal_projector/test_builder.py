"""Which projector a config names."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from llava.errors import CheckpointError
from llava.model.multimodal_projector.builder import IdentityMap, SimpleResBlock, build_vision_projector


def projector(kind=None, **more):
    named = {} if kind is None else {"mm_projector_type": kind}
    return build_vision_projector(SimpleNamespace(mm_hidden_size=3, hidden_size=5, **named, **more), delay_load=True)


def test_build_vision_projector_of_each_type_has_its_layers():
    assert isinstance(projector(), nn.Linear)
    assert isinstance(projector("linear"), nn.Linear)
    assert isinstance(projector("identity"), IdentityMap)
    for depth in (1, 2, 3):
        layers = projector(f"mlp{depth}x_gelu")
        assert [type(layer) for layer in layers] == ([nn.Linear, nn.GELU] * depth)[:-1]
        assert set(layers.state_dict()) == {f"{2 * n}.{part}" for n in range(depth) for part in ("weight", "bias")}
        assert layers(torch.zeros(2, 4, 3)).shape == (2, 4, 5)


@pytest.mark.parametrize("kind", ["mlp", "mlp0x_gelu", "mlp2x_relu", "mlpx_gelu", "LINEAR"])
def test_build_vision_projector_of_unknown_type_raises(kind):
    with pytest.raises(CheckpointError, match=kind):
        projector(kind)


def test_identity_map_hands_on_what_it_gets():
    x = torch.randn(2, 3)
    assert IdentityMap()(x, "more", and_more=1) is x
    assert IdentityMap().config == {"mm_projector_type": "identity"}
    assert not IdentityMap().state_dict()


def test_simple_res_block_adds_the_mlp_to_the_normalised_features():
    torch.manual_seed(0)
    block, x = SimpleResBlock(6), torch.randn(2, 4, 6)
    assert set(block.state_dict()) == {
        f"{name}.{kind}" for name in ("pre_norm", "proj.0", "proj.2") for kind in ("weight", "bias")
    }
    centred = x - x.mean(-1, keepdim=True)
    normed = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    hidden = normed @ block.proj[0].weight.T + block.proj[0].bias
    gelu = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
    torch.testing.assert_close(block(x), normed + gelu @ block.proj[2].weight.T + block.proj[2].bias)
